"""Watches the API, keeps the world as declared, and writes status. Thin: decisions live in lower packages."""
