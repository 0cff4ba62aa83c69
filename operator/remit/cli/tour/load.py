"""Clients of the tour's shop, who count what becomes of their requests."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator

_CLIENTS = 4
_PAUSE_SECONDS = 0.01


class Load:
    """Half of the clients keep their connection, half make a new one for each request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._counting = threading.Lock()
        self.answers: Counter[str] = Counter()
        """Whole answers, by what they said."""
        self.failed: list[str] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        clients = [threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(_CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield self
        finally:
            self._over.set()
            for client in clients:
                client.join()

    def _ask(self, keeps: bool) -> None:
        connection = self._connection()
        while not self._over.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                said = answer.read().decode()
                failure = "" if answer.status == 200 else f"status {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                said, failure = "", repr(error)
                connection.close()
            with self._counting:
                if failure:
                    self.failed.append(failure)
                else:
                    self.answers[said] += 1
            if not keeps:
                connection.close()
            time.sleep(_PAUSE_SECONDS)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
