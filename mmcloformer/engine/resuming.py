"""Choosing the checkpoint to resume from."""

import zipfile
from pathlib import Path

from mmengine.config import Config


def resume_from_last_whole(cfg: Config) -> str | None:
    """Set the config to resume from the last complete checkpoint of the work dir.

    This is the one that the file `last_checkpoint` names, as for the host. If that one is
    missing, cut short or damaged, it is the latest complete one. If there is none, training
    starts as the config says, with its `load_from`.

    Args:
        cfg: Config of a training, changed in place.

    Returns:
        Message for the user if the checkpoint is not the one that `last_checkpoint` names.
    """
    work_dir = Path(cfg.work_dir)
    pointer = work_dir / 'last_checkpoint'
    # The file is empty if the process was killed while writing it.
    named = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    if named and _is_usable(named):
        cfg.resume, cfg.load_from = True, named
        return None

    hook = cfg.get('default_hooks', {}).get('checkpoint', {})
    patterns = {'epoch_*.pth', 'iter_*.pth', hook.get('filename_tmpl', '').replace('{}', '*')}
    folders = {work_dir, Path(named).parent if named else work_dir}
    files = {
        file for folder in folders for pattern in patterns - {''} for file in folder.glob(pattern)
    }
    latest_first = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    whole = next((file for file in latest_first if _is_usable(file)), None)

    if not named:
        problem = f'no last_checkpoint in {work_dir}'
    elif Path(named).exists():
        problem = f'checkpoint {named} is cut short or damaged'
    else:
        problem = f'checkpoint {named} is gone'
    if whole is None:
        cfg.resume = False
        damaged = f', none of {len(files)} checkpoints is complete' if files else ''
        return f'{problem}{damaged}: training starts from the beginning'
    cfg.resume, cfg.load_from = True, str(whole)
    return f'{problem}: resuming from {whole}, the latest complete one'


def _is_usable(checkpoint: str | Path) -> bool:
    """Return whether a checkpoint is complete and matches its checksums.

    Loading does not verify the checksums. Remote files, and the folders that some strategies
    save, are left to the host.
    """
    if '://' in str(checkpoint) or Path(checkpoint).is_dir():
        return True
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    # Damaged headers raise the latter four.
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, ArithmeticError):
        return False
