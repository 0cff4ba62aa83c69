"""Floor 4: how an artifact goes live, and back."""
