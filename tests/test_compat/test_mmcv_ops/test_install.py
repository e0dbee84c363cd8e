"""When the stand-in is installed, and what installing it changes."""

import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import mmcv
import mmcv.ops
import mmcv.utils
import pytest
from mmengine.utils.dl_utils import mmcv_full_available

Run = Callable[[str], str]


def test_hosts_take_it_for_the_extension() -> None:
    assert mmcv_full_available()
    assert mmcv._ext is sys.modules['mmcv._ext']
    assert importlib.util.find_spec('mmcv._ext').loader is not None


@pytest.mark.skipif(sys.version_info >= (3, 14), reason='pkgutil.find_loader is gone')
def test_mmcv_own_check_finds_it() -> None:
    from mmcv.utils.ext_loader import check_ops_exist

    assert pkgutil.find_loader('mmcv._ext') is not None
    assert check_ops_exist()


def test_environment_report_says_what_runs() -> None:
    report = mmcv.utils.collect_env()
    assert report['MMCV Compiler'] == 'not compiled (torchvision stand-in)'
    assert report['MMCV CUDA Compiler'] == 'not compiled (torchvision stand-in)'


def test_steps_aside_for_a_compiled_mmcv(run: Run, tmp_path: Path) -> None:
    (tmp_path / '_ext.py').write_text("made_by = 'a compiler'\n")
    printed = run(
        'import sys, mmcv\n'
        f'mmcv.__path__.append({str(tmp_path)!r})\n'
        'import mmcloformer\n'
        'from mmcloformer.compat.mmcv_ops.install import replacements\n'
        "print(list(replacements()), 'mmcv._ext' in sys.modules)\n"
        'import mmcv._ext\n'
        'print(list(replacements()), mmcv._ext.made_by)'
    )
    assert printed.splitlines() == ['[] False', '[] a compiler']


def test_restores_what_earlier_imports_missed(run: Run) -> None:
    """Without the ops, upstream's mmdet and mmseg cannot be imported; they can afterwards."""
    printed = run(
        'import contextlib, warnings\n'
        "warnings.simplefilter('ignore')\n"
        'import mmcv.cnn.bricks.transformer as bricks\n'
        "assert not hasattr(bricks, 'MultiScaleDeformableAttention')\n"
        'with contextlib.suppress(ModuleNotFoundError):\n'
        '    import mmdet.apis\n'
        'with contextlib.suppress(ModuleNotFoundError):\n'
        '    import mmseg.utils\n'
        "warnings.simplefilter('error', UserWarning)\n"
        'import mmcloformer, mmcv.ops\n'
        'from mmdet.structures.mask import structures\n'
        'from mmseg.utils import mask_classification\n'
        'print(bricks.MultiScaleDeformableAttention is mmcv.ops.MultiScaleDeformableAttention,\n'
        '      structures.roi_align is mmcv.ops.roi_align,\n'
        '      mask_classification.point_sample is mmcv.ops.point_sample)\n'
        'from mmdet.models import DeformableDETR, MaskRCNN'
    )
    assert 'True True True' in printed.splitlines()


def test_warns_of_models_imported_too_early(run: Run) -> None:
    printed = run(
        'import sys, types, warnings\n'
        "sys.modules['mmseg.models'] = types.ModuleType('mmseg.models')\n"
        'with warnings.catch_warnings(record=True) as caught:\n'
        "    warnings.simplefilter('always')\n"
        '    import mmcloformer\n'
        "print([str(w.message) for w in caught if 'mmcloformer first' in str(w.message)])"
    )
    assert printed.count('mmseg.models came before mmcloformer') == 1
