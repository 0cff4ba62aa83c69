"""Floor 6: the `remit` command, also installed as `kubectl remit`."""
