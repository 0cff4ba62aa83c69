"""How one task runs, from admission to its one honest end."""
