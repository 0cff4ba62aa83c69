"""The live page: what runs, what waits and why, what went wrong, in a browser.

`server` and `security` are the HTTP side, `login` and `sessions` say who looks, `viewer` and `rows` keep what that
viewer may see, `live` tells a page of changes, and `pages/` makes each view. Everything is read and written through the
API server with the viewer's own credentials, so RBAC decides; what the operator keeps on this machine is read only of
objects that the viewer may get.
"""
