"""Archives of artifacts: whoever made one may be hostile, so a confined process of its own unpacks it."""
