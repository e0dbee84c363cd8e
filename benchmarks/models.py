"""Builds the models to compare, with random weights."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmcloformer.apis.config import build_model, image_channels, read_config
from mmcloformer.config import ConfigView
from mmcloformer.models import CloFormer
from mmcloformer.models.deploy import HalfPrecision, cpu_has_bfloat16, switch_to_deploy

from .literal import LiteralCloFormer
from .measure import Step

# Peers out of the hosts, as their users configure them for a pyramid.
PEERS: dict[str, dict[str, Any]] = {
    'PVTv2-B0': dict(
        type='mmdet.PyramidVisionTransformerV2', embed_dims=32, num_layers=[2, 2, 2, 2]
    ),
    'PVTv2-B1': dict(
        type='mmdet.PyramidVisionTransformerV2', embed_dims=64, num_layers=[2, 2, 2, 2]
    ),
    'ResNet-18': dict(type='mmdet.ResNet', depth=18),
    'ResNet-50': dict(type='mmdet.ResNet', depth=50),
    'MobileNetV2': dict(type='mmdet.MobileNetV2', out_indices=(1, 2, 4, 6)),
    'EfficientFormer-L1': dict(type='mmpretrain.EfficientFormer', arch='l1'),
    'PoolFormer-S12': dict(type='mmpretrain.PoolFormer', arch='s12', out_indices=(0, 2, 4, 6)),
    'RepVGG-A0': dict(type='mmpretrain.RepVGG', arch='A0', out_indices=(0, 1, 2, 3)),
}
ONNXRUNTIME = 'onnxruntime'
GRAPHS = 'compiled, CUDA graphs'
BFLOAT16 = 'deploy form, bfloat16'
COMPILED_BFLOAT16 = 'compiled, bfloat16'
IN_BFLOAT16 = (BFLOAT16, COMPILED_BFLOAT16)
OURS = ('training form', 'deploy form', 'compiled', GRAPHS, ONNXRUNTIME, *IN_BFLOAT16)
LITERAL = 'literal'


class Setting(NamedTuple):
    """Device and input of a model.

    Attributes:
        device: `'cpu'` (single precision) or `'cuda'` (float16 autocast).
        size: Height and width in pixels.
        batch: Images at once.
        training: A forward and a backward pass, else inference without gradients.
    """

    device: str
    size: tuple[int, int]
    batch: int
    training: bool


def build_backbone(name: str, arch: str) -> nn.Module:
    """Build one of `PEERS`, one of `OURS` (as its training form) or the literal baseline.

    Args:
        name: Name in the tables.
        arch: Size of CloFormer.
    """
    if name == LITERAL:
        return LiteralCloFormer(arch)
    if name in OURS:
        return CloFormer(arch, drop_path_rate=0.0)
    for host in ('mmdet', 'mmpretrain'):
        __import__(f'{host}.models')
    return MODELS.build(copy.deepcopy(PEERS[name]))


def backbone_step(name: str, model: nn.Module, setting: Setting) -> Step | None:
    """Prepare one run of a backbone; the loss of training is the sum of the maps' mean squares.

    Returns:
        The run, or None where the form has no such mode: deploy is for inference, CUDA graphs
        for GPUs, onnxruntime's package here for CPUs, and bfloat16 for CPUs with units for it,
        as everything runs in half precision on a GPU.
    """
    if setting.training and name in ('deploy form', ONNXRUNTIME, *IN_BFLOAT16):
        return None
    if name in IN_BFLOAT16 and (setting.device != 'cpu' or not cpu_has_bfloat16()):
        return None
    if name == GRAPHS and setting.device == 'cpu':
        return None
    if name == ONNXRUNTIME:
        return onnxruntime_step(model, setting) if setting.device == 'cpu' else None
    model.to(setting.device).train(setting.training)
    if name in IN_BFLOAT16:
        model = HalfPrecision(cast(CloFormer, model), 'bfloat16')
    elif name in OURS and not setting.training and name != 'training form':
        switch_to_deploy(model)
    forward: Callable[[Tensor], Any] = model
    if name in ('compiled', GRAPHS, COMPILED_BFLOAT16):
        # Freezing turns the weights into constants and changes their memory layout.
        options: dict[str, Any] = {
            'freezing': not setting.training,
            'triton.cudagraphs': name == GRAPHS,
        }
        forward = torch.compile(model, options=options)
    image = torch.randn(setting.batch, 3, *setting.size, device=setting.device)
    if setting.device == 'cuda':  # For everybody: half precision convolves in it.
        model.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)

    def loss() -> Tensor:
        outs = forward(image)
        return torch.stack([out.float().square().mean() for out in outs]).sum()

    return _step(model, loss, lambda: forward(image), setting)


def onnxruntime_step(model: nn.Module, setting: Setting) -> Step:
    """Prepare one run of a backbone, exported and run by onnxruntime on the CPU."""
    import onnxruntime

    from mmcloformer.export import export_onnx, make_graph

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'backbone.onnx')
        if isinstance(model, CloFormer):
            export_onnx(make_graph(model.eval()), path, setting.size, dynamic=setting.batch > 1)
        else:
            image = torch.randn(setting.batch, 3, *setting.size)
            torch.onnx.export(model.eval(), (image,), path, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Otherwise its threads keep spinning during the next model's turn.
        options.add_session_config_entry('session.force_spinning_stop', '1')
        session = onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider'])
    images = {session.get_inputs()[0].name: torch.randn(setting.batch, 3, *setting.size).numpy()}
    return lambda: session.run(None, images)


def config_step(path: str, setting: Setting) -> Step:
    """Prepare one run of a whole detector, segmentor or classifier, from its data
    preprocessor's output to its losses or its predictions.

    Args:
        path: Config file, or a host's as `'mmdet::retinanet/...'`.
        setting: Where and on what it runs.
    """
    cfg = read_config(path)
    scope = ConfigView(cfg).host or ''
    model: Any = build_model(cfg).to(setting.device).train(setting.training)
    if not setting.training and isinstance(model.backbone, CloFormer):
        switch_to_deploy(model)
    data = model.data_preprocessor(_batch(scope, image_channels(cfg), setting), setting.training)

    def loss() -> Tensor:
        return model.parse_losses(model(**data, mode='loss'))[0]

    return _step(model, loss, lambda: model(**data, mode='predict'), setting)


def _step(model: nn.Module, loss: Callable[[], Tensor], infer: Step, setting: Setting) -> Step:
    amp = torch.autocast(setting.device, torch.float16, enabled=setting.device == 'cuda')

    def training_step() -> None:
        with amp:
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)  # The memory of the next run then includes its gradients.

    @torch.no_grad()
    def inference() -> Any:
        with amp:
            return infer()

    return training_step if setting.training else inference


def _batch(scope: str, channels: int, setting: Setting) -> dict[str, Any]:
    """Random images with ground truth: an object, a map of the class 0, or the label 0."""
    shape = (channels, *setting.size)
    if scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        items = [1] * setting.batch
        data = demo_mm_inputs(setting.batch, shape, items, with_mask=True, use_box_type=True)
        for sample in data['data_samples']:
            sample.gt_instances.labels.zero_()
        return data
    images = torch.randint(0, 256, (setting.batch, *shape), dtype=torch.uint8)
    if scope == 'mmpretrain':
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(0) for _ in images]
        return dict(inputs=images, data_samples=samples)
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    size = setting.size
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.long))
    return dict(inputs=list(images), data_samples=[sample.clone() for _ in images])
