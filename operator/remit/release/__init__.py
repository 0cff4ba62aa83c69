"""How a revision goes live, and how it comes back. The decisions are pure; targets do the work."""
