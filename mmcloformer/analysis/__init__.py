"""Looking at what training wrote."""
