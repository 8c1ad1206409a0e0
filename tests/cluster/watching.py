"""Looks again and again while a test goes on."""

from __future__ import annotations

import threading
from typing import Self


class Watching:
    """A thread that looks twice a second, from beginning to end of a context."""

    def __init__(self) -> None:
        self.over, self.thread = threading.Event(), threading.Thread(target=self._again)

    def look(self) -> None:
        """Once."""
        raise NotImplementedError

    def _again(self) -> None:
        while not self.over.wait(0.5):
            self.look()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
