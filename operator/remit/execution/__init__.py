"""Floor 4: how one task runs, from admission to its one honest end."""
