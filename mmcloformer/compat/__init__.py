"""Everything that changes a host package."""
