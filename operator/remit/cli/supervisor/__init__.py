"""`remit up` as processes: a supervisor, the control plane, and the operator, so that neither can hold up the other.

`supervisor`, `worker` and `restarts` run in the supervisor, which imports neither of the two. `__main__` and `service`
are the first steps of a process that it starts; `controlplane` and `operator` are what that process then does.
"""
