"""Remit's control plane and a kube-apiserver, asked the same.

A package, so that its fixture of servers ends with its tests.
"""
