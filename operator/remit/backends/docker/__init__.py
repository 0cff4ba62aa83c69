"""Work in containers of a Docker engine. Not imported with `remit.backends`: the SDK takes its time to import."""
