"""The filtering proxy for `network: restricted`."""
