"""The trained model of a config, and the steps through which it sees an image."""

from collections.abc import Mapping
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.runner import CheckpointLoader

from ..config import ConfigView, Entry
from ..errors import ConfigError
from ..models.state_dict import check_whole_model
from .config import build_model


def load_trained(cfg: Config, checkpoint: str) -> tuple[BaseModel, dict[str, Any]]:
    """Build the model of a config in evaluation mode and load a checkpoint.

    Args:
        cfg: Config for mmdet, mmseg or mmpretrain; its host becomes the default scope.
        checkpoint: File, URL or `mmcloformer://NAME` with all weights of the model.

    Returns:
        The model and the `metainfo` of its data set, such as `classes`. It comes from the
        checkpoint if it contains that, otherwise from the data sets of the config.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not match the model.
        ConfigError: As `build_model`.
    """
    model = revert_sync_batchnorm(build_model(cfg))
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    model.load_state_dict(check_whole_model(model, loaded, checkpoint))
    return model.eval(), _find_metainfo(cfg, loaded)


def _find_metainfo(cfg: Config, loaded: Mapping[str, Any]) -> dict[str, Any]:
    meta = loaded.get('meta') or {}
    # Before version 1.0 of the hosts' common engine, the names stood in the meta data themselves.
    found = {key.lower(): value for key, value in (meta.get('dataset_meta') or meta).items()}
    if found.get('classes'):
        return found
    view = ConfigView(cfg)
    built = (view.build_lazily(each.entry) for each in view.datasets('test', 'val', 'train'))
    return next((dict(dataset.metainfo) for dataset in built if dataset is not None), {})


def inference_steps(cfg: Config) -> list[Entry]:
    """Return the steps of the test pipeline, without those that load annotations.

    Args:
        cfg: The whole config. One without a test set has the pipeline of its validation set.

    Raises:
        ConfigError: If it has neither.
    """
    view = ConfigView(cfg)
    dataset = next(view.datasets('test', 'val'), None)
    if dataset is None or not dataset.steps:
        raise ConfigError(
            'the config does not say how images are loaded: add a test_dataloader with '
            'dataset.pipeline (that of val_dataloader is used otherwise)'
        )
    loaders = [LoadAnnotations]
    if view.host == 'mmseg':
        from mmseg.datasets.transforms import LoadBiomedicalAnnotation, LoadDepthAnnotation

        loaders += [LoadBiomedicalAnnotation, LoadDepthAnnotation]
    return [step for step in dataset.steps if not step.is_a(*loaders)]
