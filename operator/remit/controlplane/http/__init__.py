"""The HTTP side: requests, negotiation, discovery and other documents, dispatch to verbs."""
