"""The embedded Kubernetes API server. Knows Kubernetes, knows nothing of tasks or releases."""
