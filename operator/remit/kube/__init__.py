"""Kubernetes as a client: connection, caches, work queue, Lease, Events, status writes. Knows nothing of what runs."""
