"""Unpacks archives of artifacts in a separate confined process, because the author of an archive may be hostile."""
