"""Floor 5: watches the API, keeps the world as declared, and writes status. Thin: decisions live on lower floors."""
