"""Resuming the toy of `tests/toy.py` and collecting what is logged."""

import logging
from pathlib import Path

from tests.toy import toy_runner


class Warnings(logging.Handler):
    """Collects the warnings that this package logs."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.text = ''

    def emit(self, record):
        if Path(record.pathname).parent.name == 'engine':
            self.text += record.getMessage() + '\n'


def resume_with_warnings(checkpoint, work_dir, /, *, hooks, **settings):
    """Resume with hooks of these types; returns the Runner and the warnings."""
    runner = toy_runner(
        work_dir,
        resume=True,
        load_from=str(checkpoint),
        custom_hooks=[dict(type=hook) for hook in hooks],
        **settings,
    )
    warnings = Warnings()
    runner.logger.addHandler(warnings)
    try:
        runner.train()
    finally:
        runner.logger.removeHandler(warnings)
    return runner, warnings.text
