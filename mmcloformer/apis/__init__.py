"""Command lines, configs, Runners and predictions, as the tools use them."""
