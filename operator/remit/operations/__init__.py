"""Floor 3: what can be run."""
