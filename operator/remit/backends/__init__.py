"""Floor 3: where it runs."""
