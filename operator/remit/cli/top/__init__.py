"""`remit top`: what runs, what waits and why, and what releases do, live in the terminal.

`rows`, `views`, `board`, `rates`, `cells` and `details` are pure: they say what is shown. `watching` fills the board
from the API server, `actions` asks the server for something, and the other modules are textual's.
"""
