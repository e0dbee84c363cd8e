"""Checks of the data before training: files exist, match the config and can be read."""
