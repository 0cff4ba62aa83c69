"""Where commands run: backends for processes, Docker and Kubernetes."""
