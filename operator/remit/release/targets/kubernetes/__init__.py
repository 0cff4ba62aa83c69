"""The Kubernetes target: two `apps/v1` Deployments, and a Service that selects the pods of one or of both."""
