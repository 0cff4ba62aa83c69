"""How the new side takes over from the old one, a strategy a file."""
