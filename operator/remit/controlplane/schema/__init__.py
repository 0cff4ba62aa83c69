"""What Kubernetes says about an object's shape, as pure functions on plain dicts: no I/O, no clock."""
