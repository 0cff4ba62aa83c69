"""Sends the same requests to Remit's control plane and to a kube-apiserver, and compares the responses.

A package, so that its fixture of servers ends with its tests.
"""
