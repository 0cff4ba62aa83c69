"""Floor 2: may it run? Pure functions of data; no I/O."""
