"""Kubernetes as a client: connection, reflectors, work queue, Lease, Events, status. Knows nothing of what runs."""
