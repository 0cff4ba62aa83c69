"""Floor 2: the walls, and what this host can give."""
