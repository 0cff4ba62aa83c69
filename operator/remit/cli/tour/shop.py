"""A shop. Each version is a copy of this, with its own name in the file `version` beside it."""

import http.server
import os
import pathlib

VERSION = pathlib.Path("version").read_text().strip()


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the method name that http.server requires
        takes_orders = VERSION != "v3"
        self.send_response(500 if self.path == "/order" and not takes_orders else 200)
        self.send_header("Content-Length", str(len(VERSION)))
        self.end_headers()
        self.wfile.write(VERSION.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Shop).serve_forever()
