"""Pre-training without a data set: a classifier learns images that are drawn from formulas.

Needs mmpretrain; configs ask for it by `custom_imports=dict(imports=['mmcloformer.formula'])`.
"""

from .dataset import WaveDataset
from .preprocessor import WavePreprocessor

__all__ = ['WaveDataset', 'WavePreprocessor']
