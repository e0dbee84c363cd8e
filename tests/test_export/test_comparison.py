import numpy as np
import pytest

from mmcloformer.export.comparison import Cut, Report, Tolerance, _compare


def instances(boxes, scores, labels):
    return dict(
        boxes=np.float32(boxes).reshape(-1, 4), scores=np.float32(scores), labels=np.array(labels)
    )


BOX, OTHER = [0, 0, 10, 10], [20, 20, 40, 40]


def compare(expected, found, max_per_img=-1):
    return _compare(expected, found, Tolerance(), Report(), Cut(0.05, max_per_img))


def test_order_does_not_matter_among_equals():
    a = instances([BOX, OTHER], [0.5, 0.5], [0, 1])
    b = instances([OTHER, BOX], [0.5, 0.5], [1, 0])
    assert compare(a, b) == ''


@pytest.mark.parametrize(
    'found',
    [
        instances([BOX], [0.9], [0]),
        instances([BOX, OTHER, [5, 5, 9, 9]], [0.9, 0.5, 0.7], [0, 1, 1]),
        instances([BOX, OTHER], [0.9, 0.5], [1, 1]),
        instances([[0, 0, 10, 10.2], OTHER], [0.9, 0.5], [0, 1]),
        instances([BOX, OTHER], [0.91, 0.5], [0, 1]),
    ],
    ids=['missing', 'more', 'label', 'box', 'score'],
)
def test_instances_that_disagree(found):
    expected = instances([BOX, OTHER, [50, 50, 60, 60]], [0.9, 0.5, 0.1], [0, 1, 0])
    found = {key: np.concatenate([value, expected[key][2:]]) for key, value in found.items()}
    assert 'in one result only' in compare(expected, found)


def test_the_weakest_may_fall_short():
    expected = instances([BOX, OTHER], [0.9, 0.0505], [0, 1])
    assert compare(expected, instances([BOX], [0.9], [0])) == ''


def test_only_a_full_list_was_cut_off_at_its_lowest_score():
    one, other = instances([BOX], [0.9], [0]), instances([OTHER], [0.9], [1])
    assert '2 instances are in one result only' in compare(one, other)
    expected = instances([BOX, OTHER], [0.9, 0.6], [0, 1])
    found = instances([BOX, [50, 50, 60, 60]], [0.9, 0.6], [0, 0])
    assert compare(expected, found, 2) == ''
    assert '2 instances' in compare(expected, found, 3)
    assert '1 instances' in compare(one, instances([], [], []), 0)


def test_masks():
    mask = np.zeros((1, 20, 20), bool)
    mask[:, :10, :10] = True
    expected = instances([BOX], [0.9], [0]) | dict(masks=mask)
    sure = np.where(mask, 0.9, 0.1)
    assert compare(expected, expected | dict(masks=sure)) == ''
    moved = sure.transpose(0, 2, 1)[:, ::-1]
    assert 'mask differs in 200.00%' in compare(expected, expected | dict(masks=moved))
    on_the_edge = np.where(mask, 0.4995, 0.5005)
    assert compare(expected, expected | dict(masks=on_the_edge)) == ''


def test_class_maps():
    labels = np.arange(10000).reshape(1, 100, 100) % 5
    other = labels.copy()
    other[0, 0, :5] += 1
    assert compare(dict(class_map=labels), dict(class_map=other)) == ''
    other[0, 1] += 1
    assert '1.05%' in compare(dict(class_map=labels), dict(class_map=other))


def test_probabilities():
    a, b = (dict(probabilities=np.float32([row])) for row in ([0.4, 0.6], [0.4005, 0.5995]))
    assert compare(a, b) == ''
    assert 'differ by 0.2' in compare(a, dict(probabilities=np.float32([[0.6, 0.4]])))
