"""Where a Deployment goes live: one adapter for each kind of place."""
