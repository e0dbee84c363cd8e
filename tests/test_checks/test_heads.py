"""Fields of a config that give a number of classes."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmcloformer.checks.classes import class_problems
from mmcloformer.checks.heads import head_numbers, ignored_label_problems, number_problems
from mmcloformer.checks.labels import class_number
from mmcloformer.config import ConfigView
from tests.spelling import SPELLINGS, spell

HEADS = dict(mmdet='RetinaHead', mmseg='FCNHead', mmpretrain='LinearClsHead')
FIELDS = dict(mmdet='bbox_head', mmseg='decode_head', mmpretrain='head')


def config(host, **parts):
    return Config(dict(default_scope=host, model=parts))


def classifier(head, **fields):
    model = dict(type='ImageClassifier', backbone=dict(type='ResNet'), head=head)
    return Config(dict(default_scope='mmpretrain', model=model) | fields)


def found(cfg, count, splits=('val',)):
    """The field of each problem, and the value to set."""
    problems = number_problems(ConfigView(cfg), splits, [count], 'REASON')
    return [(each.field, each.remedy.removeprefix('set it to ')) for each in problems]


@pytest.mark.parametrize('host', HEADS)
def test_a_head_in_every_spelling(host):
    kinds = [spell(host, 'MODELS', HEADS[host], spelling) for spelling in SPELLINGS]
    kinds.append(type('Own', (kinds[-1],), {}))
    for kind in kinds:
        cfg = config(host, **{FIELDS[host]: dict(type=kind, num_classes=80)})
        assert found(cfg, 4) == [(f'model.{FIELDS[host]}.num_classes', '4')]


@pytest.mark.parametrize('host', HEADS)
def test_a_head_of_the_users_own_may_count_in_another_way(host):
    kind = spell(host, 'MODELS', HEADS[host], 'itself')
    for each, severity in ((kind, 'error'), (type('Own', (kind,), {}), 'warning')):
        view = ConfigView(config(host, **{FIELDS[host]: dict(type=each, num_classes=3)}))
        (problem,) = number_problems(view, ('val',), [4], 'REASON')
        assert problem.severity == severity
        (number,) = head_numbers(view)
        assert number.severity == severity
        if host != 'mmdet':
            labelled = SimpleNamespace(metainfo=dict(classes=('a', 'b', 'c', 'd')))
            assert class_number(view, labelled) == (3 if severity == 'error' else 4)


def test_all_numbers_in_a_head_of_the_users_own_are_warnings():
    kind = type('Own', (spell('mmseg', 'MODELS', 'FCNHead', 'itself'),), {})
    loss = dict(type='CrossEntropyLoss', class_weight=[1] * 3)
    view = ConfigView(config('mmseg', decode_head=dict(type=kind, num_classes=3, loss_decode=loss)))
    problems = list(number_problems(view, ('val',), [4], 'REASON'))
    assert [each.severity for each in problems] == ['warning'] * 2
    kind = type('Own', (spell('mmpretrain', 'MODELS', 'LinearClsHead', 'itself'),), {})
    view = ConfigView(
        classifier(
            dict(type=kind, num_classes=3, topk=5),
            val_evaluator=dict(type='Accuracy', topk=5),
            data_preprocessor=dict(to_onehot=True, num_classes=3),
        )
    )
    problems = list(number_problems(view, ('val',), [4], 'REASON'))
    assert [each.severity for each in problems] == ['warning'] * 3


def test_heads_in_lists_are_found_and_objectness_is_none():
    boxes = [dict(type='Shared2FCBBoxHead', num_classes=number) for number in (4, 80)]
    semantic = dict(type='FusedSemanticHead', num_classes=183)
    cfg = config(
        'mmdet',
        rpn_head=dict(type='RPNHead', num_classes=1),
        roi_head=dict(type='CascadeRoIHead', bbox_head=boxes, semantic_head=semantic),
        panoptic_head=dict(type='PanopticFPNHead', num_things_classes=2, num_stuff_classes=2),
    )
    assert found(cfg, 4) == [('model.roi_head.bbox_head.1.num_classes', '4')]


@pytest.mark.parametrize(
    'head',
    [
        None,
        dict(type='MAEPretrainHead', num_classes=9),
        dict(type='LinearRegressionHead', num_classes=9),
        dict(type='MultiTaskHead', task_heads=dict(a=dict(type='LinearClsHead', num_classes=9))),
        dict(type='NoSuchHead', num_classes=9),
    ],
)
def test_heads_for_other_tasks_than_classes_are_left_alone(head):
    assert not found(classifier(head, val_evaluator=dict(type='Accuracy', topk=5)), 3)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_every_number_in_a_classifier_is_found(spelling):
    head = dict(
        type='LinearClsHead',
        num_classes=9,
        loss=dict(type='LabelSmoothLoss', num_classes=8, class_weight=[1.0] * 9),
        cal_acc=True,
        topk=5,
    )
    metric = spell('mmpretrain', 'METRICS', 'Accuracy', spelling)
    cfg = classifier(
        head,
        val_evaluator=[dict(type=metric, topk=(1, 3, 5)), dict(type='MultiLabelMetric')],
    )
    kind = spell('mmpretrain', 'MODELS', 'ClsDataPreprocessor', spelling)
    cfg.model.data_preprocessor = dict(type=kind, num_classes=7, to_onehot=True)
    assert found(cfg, 3) == [
        ('model.head.num_classes', '3'),
        ('model.head.loss.num_classes', '3'),
        ('model.head.loss.class_weight', 'give it 3'),
        ('model.data_preprocessor.num_classes', '3'),
        ('val_evaluator.0.topk', '(1, 3)'),
        ('model.head.topk', '1'),
    ]


def test_numbers_that_are_not_used_are_left_alone():
    """As left over in a config without Mixup, and topk of a head without training accuracy."""
    head = dict(type='LinearClsHead', num_classes=3, topk=(1, 5))
    cfg = classifier(head, data_preprocessor=dict(num_classes=1000))
    cfg.val_evaluator = dict(type='RetrievalRecall', topk=(1, 5))
    assert not found(cfg, 3)


def test_masks_of_any_class_have_no_number_of_classes():
    head = dict(type='FCNMaskHead', num_classes=80, class_agnostic=True)
    cfg = config('mmdet', roi_head=dict(type='StandardRoIHead', mask_head=head))
    assert not found(cfg, 4)


def test_features_are_not_taken_for_outputs():
    head = dict(type='Mask2FormerHead', num_classes=5, out_channels=256)
    head['loss_cls'] = dict(type='mmdet.CrossEntropyLoss', class_weight=[1.0] * 5 + [0.1])
    cfg = config('mmseg', decode_head=head)
    assert not found(cfg, 5)
    field, remedy = found(cfg, 7)[-1]
    assert (field, remedy.partition(',')[0]) == (
        'model.decode_head.loss_cls.class_weight', 'give it 8'
    )  # fmt: skip
    # Left over from a config of another number of classes.
    cfg.model.decode_head.loss_cls.class_weight = [1.0] * 150 + [0.1]
    assert found(cfg, 5)[-1][1].startswith('give it 6, the last of which is for the background')


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco',
        'mmdet::htc/htc_r50_fpn_1x_coco',
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic',
        'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco',
        'mmdet::grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco',
        'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712',
        'mmdet::seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1',
        'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024',
        'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512',
        'mmseg::point_rend/pointrend_r50_4xb4-160k_ade20k-512x512',
        'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_hrf-256x256',
        'mmpretrain::arcface/resnet50-arcface_8xb32_inshop',
        'mmpretrain::csra/resnet101-csra_1xb16_voc07-448px',
        'mmpretrain::deit3/deit3-small-p16_64xb64_in1k',
        'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k',
        'mmpretrain::resnet/resnet50_8xb16_cifar100',
        'mmpretrain::vgg/vgg11_8xb32_in1k',
    ],
)
@pytest.mark.slow  # It reads many configs of the hosts.
def test_the_hosts_own_configs_agree(name):
    """So that the check stops nobody's training."""
    cfg = Config.fromstring(f"_base_ = '{name}.py'", '.py')
    view = ConfigView(cfg)
    for splits in (('train', 'val'), ('test',)):
        assert not [*class_problems(view, splits)]
    if view.host != 'mmpretrain' and 'grounding' not in name:
        assert [*head_numbers(view)]


def test_weights_of_classes():
    """A single output channel has the weight of its positive class; detectors may add one."""
    head = dict(type='FCNHead', num_classes=2, out_channels=1)
    head['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[3.0])
    assert not found(config('mmseg', decode_head=head), 2)
    head = dict(type='RetinaHead', num_classes=80, loss_cls=dict(type='CrossEntropyLoss'))
    view = ConfigView(config('mmdet', bbox_head=head))
    for count, extra in ((81, {}), (80, dict(use_sigmoid=True)), (79, dict(type='MyLoss'))):
        view.cfg.model.bbox_head.loss_cls.update(class_weight=[1.0] * count, **extra)
        assert not list(number_problems(view, ('val',), [133, 80], 'REASON'))
    loss = dict(type='CrossEntropyLoss', class_weight=[1.0] * 80)
    view.cfg.model.bbox_head.loss_cls = loss
    (problem,) = number_problems(view, ('val',), [80], 'REASON')
    assert problem.remedy.startswith('give it 81, the last')
    head = dict(type='LinearClsHead', num_classes=4, loss=dict(loss, class_weight=[1.0] * 5))
    assert found(classifier(head), 4) == [('model.head.loss.class_weight', 'give it 4')]


def test_the_detector_inside_a_semi_supervised_one():
    heads = dict(bbox_head=dict(type='RetinaHead', num_classes=80), rpn_head=dict(type='RPNHead'))
    cfg = config('mmdet', detector=heads)
    assert found(cfg, 2) == [('model.detector.bbox_head.num_classes', '2')]


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_heads_and_evaluators_that_ignore_other_labels_are_told(spelling):
    head = dict(type=spell('mmseg', 'MODELS', 'FCNHead', spelling), ignore_index=11)
    metric = spell('mmseg', 'METRICS', 'IoUMetric', spelling)
    cfg = config('mmseg', decode_head=head, auxiliary_head=[head, dict(head)])
    cfg.val_evaluator = dict(type=metric, ignore_index=11)
    cfg.test_evaluator = dict(cfg.val_evaluator)
    assert [*ignored_label_problems(ConfigView(cfg))] == []
    cfg.model.auxiliary_head[1].pop('ignore_index')
    cfg.test_evaluator.pop('ignore_index')
    found = [*ignored_label_problems(ConfigView(cfg))]
    assert [each.field for each in found] == [
        'model.auxiliary_head.1.ignore_index',
        'test_evaluator.ignore_index',
    ]
    assert {each.severity for each in found} == {'warning'}
