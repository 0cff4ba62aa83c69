"""The docker target: containers on an engine, local or remote, behind the proxy."""
