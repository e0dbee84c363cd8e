import pytest

from mmcloformer.apis.config import read_config
from mmcloformer.apis.option_keys import apply_options
from mmcloformer.errors import ConfigError
from tests.conftest import ROOT

CONFIG = ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py'


@pytest.fixture
def cfg():
    return read_config(CONFIG)


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('train_dataloder.batch_size', 'train_dataloader.batch_size'),
        ('train_dataset.batch_size', 'train_dataloader.batch_size'),
        ('load_form', 'load_from'),
        ('workdir', 'work_dir'),
        ('experiment_nane', 'experiment_name'),
        ('optimizer.lr', 'optim_wrapper.optimizer.lr'),
        ('backbone.arch', 'model.backbone.arch'),
        ('data_preprocessor.mean', 'model.data_preprocessor.mean'),
    ],
)
def test_a_misspelt_or_misplaced_field_is_refused(cfg, key, meant):
    before = cfg.pretty_text
    with pytest.raises(ConfigError, match=f'did you mean {meant}\\?'):
        apply_options(cfg, {key: 1})
    assert cfg.pretty_text == before


def test_what_a_host_reads_passes_silently(cfg):
    keys = [
        'load_from', 'resume', 'auto_scale_lr.enable', 'launcher', 'compile', 'randomness.seed',
        'find_unused_parameters', 'efficient_conv_bn_eval', 'tta_model.type', 'sync_bn',
        'visualizer.name', 'custom_hooks', 'env_cfg.cudnn_benchmark',
        'model.new', 'train_dataloader.dataset.pipeline.0.color_type', 'param_scheduler.0.new',
        'runner_type',
    ]  # fmt: skip
    for key in keys:
        assert apply_options(cfg, {key: 1}) == [], key
    cfg = read_config(ROOT / 'configs/demo/cloformer_xxs_shapes.py')
    assert apply_options(cfg, {'data_preprocessor.mean': 1}) == []


def test_other_new_fields_are_told(cfg):
    (warning,) = apply_options(cfg, {'my_note': 'a b'})
    assert warning.endswith("no host reads a field 'my_note' of this config, so it has no effect")
    assert cfg.my_note == 'a b'
    (warning,) = apply_options(cfg, {'batch_size': 4})
    assert warning.endswith('did you mean train_dataloader.batch_size?')
    cfg.runner_type = 'RunnerOfAnotherPackage'
    assert apply_options(cfg, {'train_dataloder.batch_size': 1}) == []


def test_a_variable_that_other_fields_were_made_of(cfg):
    (warning,) = apply_options(cfg, {'data_root': '/data/own/'})
    for field in ('train_dataloader.dataset.data_root', 'val_evaluator.ann_file'):
        assert field in warning
    # Not if they are set too.
    options = {'data_root': '/data/new/'}
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options[f'{field}.dataset.data_root'] = '/data/new/'
    for field in ('val_evaluator', 'test_evaluator'):
        options[f'{field}.ann_file'] = '/data/new/val.json'
    cfg = read_config(CONFIG)
    assert apply_options(cfg, options) == []


@pytest.mark.parametrize(
    ('name', 'option', 'field'),
    [
        ('retinanet_cloformer_xs_coco', 'train_pipeline.2.scale', 'train_dataloader.dataset'),
        ('retinanet_cloformer_xs_coco', 'test_pipeline.1.scale', 'val_dataloader.dataset.pipeline'),
        ('upernet_cloformer_xs_ade20k', 'norm_cfg.type', 'model.decode_head.norm_cfg'),
        ('upernet_cloformer_xs_ade20k', 'data_preprocessor.mean', 'model.data_preprocessor.mean'),
        ('upernet_cloformer_xs_ade20k', 'optimizer.lr', 'optim_wrapper.optimizer'),
        ('demo/cloformer_xxs_shapes', 'crop', 'the fields that a host reads'),
    ],
)
def test_an_inherited_variable_has_no_effect(name, option, field):
    cfg = read_config(ROOT / f'configs/{name}.py')
    cfg.merge_from_dict(dict(crop=8))
    (warning,) = apply_options(cfg, {option: 1})
    assert f'{option}: no host reads this variable' in warning
    advice = warning.rpartition('; set ')[2]
    assert field in advice
    assert not any(name in advice for name in ('train_pipeline', 'test_pipeline'))


@pytest.mark.parametrize(
    ('name', 'keys'),
    [
        (
            'upernet_cloformer_xxs_ade20k',
            [
                'crop_size',
                'model.data_preprocessor.size',
                'train_dataloader.dataset.pipeline.3.crop_size',
            ],
        ),
        (
            'upernet_cloformer_xxs_ade20k',
            ['data_preprocessor.size', 'model.data_preprocessor.size'],
        ),
        (
            'retinanet_cloformer_xxs_custom',
            [
                'root',
                *(f'{split}_dataloader.dataset.data_root' for split in ('train', 'val', 'test')),
                *(f'{split}_evaluator.ann_file' for split in ('val', 'test')),
            ],
        ),
    ],
)
def test_a_variable_with_all_fields_made_of_it(name, keys):
    cfg = read_config(ROOT / f'configs/{name}.py')
    assert apply_options(cfg, dict.fromkeys(keys, 1)) == []


@pytest.mark.parametrize(
    'options',
    [
        {'param_scheduler.7.end': 1},
        {'param_scheduler.end': 1},
        {'train_cfg.max_epochs.x': 1},
        {'train_dataloader.dataset.pipeline.0': 1},
        {'new': 1, 'new.a': 2},
    ],
)
def test_an_option_that_does_not_fit(cfg, options):
    with pytest.raises(ConfigError, match=', '.join(options)):
        apply_options(cfg, options)


def test_the_tools_say_it(tool_error, tool_main, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where the demo's data are not.
    args = ('check_dataset.py', CONFIG, '--cfg-options')
    assert 'did you mean train_dataloader' in tool_error(*args, 'train_dataloder.batch_size=1')
    assert 'not of the form key=value' in tool_error(*args, 'work_dir=My', 'Drive')
    assert 'My Drive/coco' in tool_error(
        *args, f'train_dataloader.dataset.data_root={tmp_path}/My Drive/coco'
    )
    assert capsys.readouterr().err.count('warning: ') == 0
    tool_error(*args, 'note=1')
    assert 'warning: --cfg-options note: no host' in capsys.readouterr().err


HOST_CONFIGS = dict(
    mmdet='retinanet/retinanet_r50_fpn_1x_coco',
    mmseg='fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512',
    mmpretrain='resnet/resnet18_8xb32_in1k',
)


@pytest.mark.parametrize('host', HOST_CONFIGS)
@pytest.mark.parametrize('inherited', [False, True])
def test_fields_of_older_hosts_in_a_file_are_told(host, inherited, tmp_path, capsys):
    path = tmp_path / 'own.py'
    base = f'{host}::{HOST_CONFIGS[host]}.py'
    path.write_text(
        f"_base_ = '{base}'\n"
        "optimizer = dict(type='AdamW', lr=1e-3)\n"
        "lr_config = dict(policy='step')\n"
        'runner = dict(max_epochs=3)\n'
        'data = dict(samples_per_gpu=2)\n'
        'my_note = 1\n'
    )
    if inherited:
        base, path = path, tmp_path / 'second.py'
        path.write_text(f"_base_ = '{base.name}'\n")
    read_config(path)
    warnings = capsys.readouterr().err.splitlines()
    assert [line.rpartition('; set ')[2] for line in warnings if line.startswith('warning: ')] == [
        'train_dataloader, val_dataloader and test_dataloader',
        'param_scheduler',
        'optim_wrapper.optimizer',
        'train_cfg',
    ]


@pytest.mark.parametrize('host', HOST_CONFIGS)
def test_variables_and_the_hosts_own_files_are_left_alone(host, tmp_path, capsys):
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = '{host}::{HOST_CONFIGS[host]}.py'\n"
        "optimizer = dict(type='AdamW', lr=1e-3)\n"
        "data = dict(root='data/coco')\n"
        'seed = 3\n'
        "optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=optimizer)\n"
        "train_dataloader = dict(dataset=dict(data_root=data['root']))\n"
        'randomness = dict(seed=seed)\n'
    )
    read_config(path)
    read_config(f'{host}::{HOST_CONFIGS[host]}.py')
    path.write_text("optimizer = dict(lr=1)\nrunner_type = 'RunnerOfAnotherPackage'\n")
    read_config(path)
    assert 'warning: ' not in capsys.readouterr().err


def test_options_of_older_hosts_are_told_with_the_field_of_today(cfg):
    for key, today in {'lr_config.step': 'param_scheduler', 'total_epochs': 'max_epochs'}.items():
        (warning,) = apply_options(cfg, {key: 1})
        assert today in warning
