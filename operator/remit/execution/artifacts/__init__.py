"""What is kept of the files that tasks make, and how later tasks and users get at it."""
