"""Errors that a user can mend; the tools print them as one message without a traceback."""


class UserError(RuntimeError):
    """Base of the errors below; its message says what to do."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, untrusted, of another model, or cannot be saved."""


class DataError(UserError):
    """A data set is not where the config says, or not what it says."""


class DivergenceError(UserError):
    """A loss or a weight became NaN or infinite in training."""
