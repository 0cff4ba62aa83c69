"""Sends the same requests to Remit's control plane and to a kube-apiserver, and compares the responses.

It is a package, so that its package-scoped fixture of servers ends with its tests.
"""
