"""Finding the checkpoint to resume from."""

import zipfile
from pathlib import Path

from mmengine.config import Config


def resume_from_last_whole(cfg: Config) -> str | None:
    """Have the Runner resume from the last whole checkpoint of the work dir.

    That is the one which `last_checkpoint` names, as for the host, unless it is absent, cut
    short or damaged: then the latest whole one. Without any, training starts as the config says,
    `load_from` included.

    Returns:
        What to tell the user, if it is another one than `last_checkpoint` names.
    """
    work_dir = Path(cfg.work_dir)
    pointer = work_dir / 'last_checkpoint'
    # Empty if the process was killed while it was written.
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
        damaged = f', none of {len(files)} checkpoints is whole' if files else ''
        return f'{problem}{damaged}: training starts from the beginning'
    cfg.resume, cfg.load_from = True, str(whole)
    return f'{problem}: resuming from {whole}, the last whole one'


def _is_usable(checkpoint: str | Path) -> bool:
    """Whether all of it is there and agrees with its checksums, which loading does not look at;
    remote files and the folders that some strategies save are left to the host."""
    if '://' in str(checkpoint) or Path(checkpoint).is_dir():
        return True
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    # The latter four come from headers that are damaged themselves.
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, ArithmeticError):
        return False
