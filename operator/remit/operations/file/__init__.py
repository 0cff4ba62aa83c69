"""Files: created, read, changed and removed beneath what policy allows."""
