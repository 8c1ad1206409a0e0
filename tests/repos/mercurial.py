"""A real Mercurial server on loopback."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def hg(folder: Path, *words: str) -> str:
    command = ["hg", "--config", "ui.username=t", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def committed(folder: Path, files: Mapping[str, bytes]) -> str:
    """A repository with one changeset and a bookmark; the changeset's 40 digits."""
    hg(folder, "init")
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(data)
    hg(folder, "commit", "--addremove", "-m", "m")
    hg(folder, "bookmark", "topic")
    return hg(folder, "id", "-i", "--debug")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve it at a path on a free port; its URL."""
    words = ["hg", "serve", "--address", "127.0.0.1", "--port", "0", "--prefix", "/r", "--accesslog", "/dev/null", "--print-url"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().strip().rstrip("/")
        finally:
            server.terminate()
