"""HTTP: one request, its redirects held to policy, connected to no address but the one that was judged."""
