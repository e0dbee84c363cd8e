import onnxruntime
import pytest
from mmengine.registry import init_default_scope

from mmcloformer.export import export_onnx, make_graph
from tests.test_export.tiny_models import config_of, tiny_model


@pytest.fixture(scope='session')
def tiny():
    """Return config, model and graph of a kind of model; each is built once."""
    made = {}

    def get(kind):
        if kind not in made:
            cfg = config_of(kind)
            model = tiny_model(cfg)
            made[kind] = cfg, model, make_graph(model)
        init_default_scope(made[kind][0].default_scope)
        return made[kind]

    return get


@pytest.fixture(scope='session')
def exported(tiny, tmp_path_factory):
    """Return an onnxruntime session of a kind of model, for any image size."""
    sessions = {}

    def get(kind):
        if kind not in sessions:
            path = tmp_path_factory.mktemp('onnx') / f'{kind}.onnx'
            export_onnx(tiny(kind)[2], path, (320, 352), dynamic=True)
            sessions[kind] = onnxruntime.InferenceSession(path)
        return sessions[kind]

    return get
