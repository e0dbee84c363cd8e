"""The data set of formulas: labels, and the numbers that images are drawn from."""

from typing import Any

import torch
from mmengine.registry import DATASETS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from ..errors import ConfigError
from .waves import draw_instance


@DATASETS.register_module()
class WaveDataset(Dataset[dict[str, Any]]):
    """Closed waves (`mmcloformer.formula.waves`), not yet drawn: `WavePreprocessor` does that.

    Args:
        num_classes: Number of formulas.
        instances: Images of each class.
        first_instance: Number of the first; a validation set begins where training ends.
        seed: The classes are other ones under another seed.

    Raises:
        ConfigError: If a count is not positive, or a number negative.
    """

    def __init__(
        self, num_classes: int, instances: int, first_instance: int = 0, seed: int = 0
    ) -> None:
        if num_classes < 1 or instances < 1 or first_instance < 0 or seed < 0:
            raise ConfigError(
                f'WaveDataset needs num_classes and instances from 1, first_instance and seed from '
                f'0, got {num_classes}, {instances}, {first_instance} and {seed}'
            )
        self.num_classes = num_classes
        self.instances = instances
        self.first_instance = first_instance
        self.seed = seed
        self.metainfo = dict(classes=tuple(f'wave {label}' for label in range(num_classes)))

    def __len__(self) -> int:
        return self.num_classes * self.instances

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image's numbers `(NUM_FIELDS,)` and label."""
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} of a set of {len(self)}')
        instance, label = divmod(index, self.num_classes)
        drawing = draw_instance(self.seed, label, self.first_instance + instance)
        sample = DataSample().set_gt_label(label)
        return dict(inputs=torch.from_numpy(drawing), data_samples=sample)
