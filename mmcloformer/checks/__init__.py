"""Whether data are where a config says, fit it and can be read, asked before training."""
