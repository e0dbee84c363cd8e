"""From a command line to a config, a model, a Runner and predictions; the tools call these."""
