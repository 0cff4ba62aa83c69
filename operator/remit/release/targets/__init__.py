"""Targets of Deployments: one adapter for each kind."""
