"""Hard and soft non-maximum suppression through mmcv's own functions."""

import math

import pytest
import torch
from mmcv.ops import batched_nms, nms, soft_nms
from torch import Tensor

Arrays = dict[str, Tensor]


def _quantised(count: int, seed: int) -> tuple[Tensor, Tensor]:
    # Quantised scores, so that many are equal.
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    size = 5 + torch.rand(count, 2, generator=generator) * 40
    scores = torch.randint(1, 20, (count,), generator=generator) / 20
    return torch.cat([corner, corner + size], dim=1), scores


@pytest.mark.parametrize('offset', [0, 1])
def test_keeps_what_compiled_mmcv_keeps(compiled: Arrays, offset: int, device: str) -> None:
    boxes, scores = compiled['boxes'].to(device), compiled['scores'].to(device)
    dets, keep = nms(boxes, scores, 0.5, offset=offset)
    assert keep.tolist() == compiled[f'nms_off{offset}_keep'].tolist()
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[keep])


def test_score_threshold_and_max_num(compiled: Arrays, device: str) -> None:
    boxes, scores = compiled['boxes'].to(device), compiled['scores'].to(device)
    _, keep = nms(boxes, scores, 0.5, score_threshold=0.3, max_num=20)
    assert keep.tolist() == compiled['nms_thr_keep'].tolist()


@pytest.mark.parametrize(
    ('name', 'extra'), [('batched_keep', {}), ('batched_split_keep', {'split_thr': 100})]
)
def test_batched(compiled: Arrays, name: str, extra: dict[str, int], device: str) -> None:
    inputs = [compiled[key].to(device) for key in ('boxes', 'scores', 'labels')]
    _, keep = batched_nms(*inputs, {'type': 'nms', 'iou_threshold': 0.5, **extra})
    assert keep.tolist() == compiled[name].tolist()


def test_offset_counts_pixels() -> None:
    # IoU 4 / 8 between edges, 10 / 15 between pixels.
    boxes = torch.tensor([[0.0, 0, 4, 2], [0, 0, 4, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert len(nms(boxes, scores, 0.6, offset=0)[1]) == 2
    assert len(nms(boxes, scores, 0.6, offset=1)[1]) == 1


def test_box_at_the_very_threshold_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 6, 1]])
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), 0.6)[1]) == 2


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    boxes, scores = _quantised(50, seed=0)
    scores = scores.to(dtype)
    _, expected = nms(boxes, scores.float(), 0.5)
    assert torch.equal(nms(boxes, scores, 0.5)[1], expected)
    _, expected = nms(boxes.to(dtype).float(), scores.float(), 0.5)
    assert torch.equal(nms(boxes.to(dtype), scores, 0.5)[1], expected)


@pytest.mark.parametrize('function', [nms, soft_nms])
def test_no_boxes(function: type, device: str) -> None:
    dets, keep = function(torch.zeros(0, 4, device=device), torch.zeros(0, device=device), 0.5)
    assert dets.shape == (0, 5)
    assert keep.shape == (0,)
    assert keep.dtype == torch.long


# The example of mmcv's own tests, with the output of its compiled op.
_EXAMPLE = {
    'naive': {1: 0.9, 0: 0.6, 3: 0.2},
    'linear': {1: 0.9, 0: 0.6, 2: 0.29024392, 3: 0.2},
    'gaussian': {1: 0.9, 0: 0.59630775, 2: 0.35275510, 3: 0.18650459},
}


@pytest.mark.parametrize('method', _EXAMPLE)
def test_soft_example(method: str, device: str) -> None:
    boxes = torch.tensor([[6.0, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]])
    scores = torch.tensor([0.6, 0.9, 0.7, 0.2])
    dets, keep = soft_nms(boxes.to(device), scores.to(device), 0.3, 0.5, 0.01, method)
    assert keep.tolist() == list(_EXAMPLE[method])
    torch.testing.assert_close(dets[:, :4].cpu(), boxes[keep.cpu()])
    torch.testing.assert_close(dets[:, 4].cpu(), torch.tensor(list(_EXAMPLE[method].values())))


def _soft_by_the_kernel(
    boxes: Tensor, scores: Tensor, threshold: float, minimum: float, method: str, offset: int
) -> tuple[list[int], list[float]]:
    """mmcv's kernel, one box at a time; the positions decide the order of equal scores."""
    places = [
        [index, *box, score]
        for index, (box, score) in enumerate(zip(boxes.tolist(), scores.tolist()))
    ]
    place = 0
    while place < len(places):
        best = max(range(place, len(places)), key=lambda other: places[other][5])
        places[place], places[best] = places[best], places[place]
        other = place + 1
        while other < len(places):
            overlap = _overlap(places[place], places[other], offset)
            if method == 'gaussian':
                places[other][5] *= math.exp(-(overlap**2) / 0.5)
            elif overlap >= threshold:
                places[other][5] *= {'naive': 0, 'linear': 1 - overlap}[method]
            if places[other][5] < minimum:
                places[other] = places[-1]
                places.pop()
            else:
                other += 1
        place += 1
    return [int(box[0]) for box in places], [box[5] for box in places]


def _overlap(a: list[float], b: list[float], offset: int) -> float:
    shared = 1.0
    for low, high in ((1, 3), (2, 4)):
        shared *= max(0.0, min(a[high], b[high]) - max(a[low], b[low]) + offset)
    areas = [(box[3] - box[1] + offset) * (box[4] - box[2] + offset) for box in (a, b)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_goes_as_the_kernel_does(method: str, offset: int) -> None:
    for seed in range(3):
        boxes, scores = _quantised(60, seed)
        before = boxes.clone(), scores.clone()
        dets, keep = soft_nms(boxes, scores, 0.3, 0.5, 0.1, method, offset)
        assert all(map(torch.equal, (boxes, scores), before))
        order, values = _soft_by_the_kernel(boxes, scores, 0.3, 0.1, method, offset)
        assert keep.tolist() == order
        assert len(order) < 60
        torch.testing.assert_close(dets[:, 4], torch.tensor(values))


@pytest.mark.parametrize('method', ['naive', 'linear'])
def test_soft_acts_at_the_very_threshold(method: str) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 6, 1]])
    dets, _ = soft_nms(boxes, torch.tensor([0.9, 0.8]), 0.6, method=method)
    expected = {'naive': [0.9], 'linear': [0.9, 0.32]}[method]
    torch.testing.assert_close(dets[:, 4], torch.tensor(expected))


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_boxes_without_area(method: str) -> None:
    boxes = torch.tensor([[3.0, 1, 3, 1], [3, 1, 3, 1], [0, 0, 2, 2]])
    dets, keep = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), method=method)
    assert keep.tolist() == [0, 1, 2]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.8, 0.7]))


def test_soft_through_batched_nms(compiled: Arrays) -> None:
    inputs = [compiled[key] for key in ('boxes', 'scores', 'labels')]
    results = [
        batched_nms(*inputs, {'type': 'soft_nms', 'iou_threshold': 0.5, 'split_thr': limit})
        for limit in (100, 10000)
    ]
    (split, split_keep), (joint, joint_keep) = results
    assert set(split_keep.tolist()) == set(joint_keep.tolist())
    torch.testing.assert_close(split[:, 4], joint[:, 4], rtol=1e-4, atol=1e-4)
