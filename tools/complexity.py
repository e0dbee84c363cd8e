#!/usr/bin/env python
"""Count parameters and multiply-adds of a config's backbone, neck, head and whole model."""
