"""Containers of a Docker engine: run, looked after and removed."""
