"""Describes objects for people, on a terminal or on the page: how a task stands and why policy decided so, a release as
a tree, records of the audit trail. It reads through the API server with the credentials of whoever looks."""
