"""Serves the sample repository over smart HTTP on loopback, so that a first link works without any other host.

``python -m binder_onprem.host.samples``, started by the supervisor. The repository is made in memory from this package's files at each start,
always the same commit; it can be read only.
"""

from __future__ import annotations

import logging
import stat
import threading
from importlib import resources
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from wsgiref.simple_server import WSGIServer, make_server

from dulwich.objects import Blob, Commit, Tree
from dulwich.repo import MemoryRepo
from dulwich.server import DictBackend
from dulwich.web import GunzipFilter, HTTPGitApplication, LimitedInputFilter, WSGIRequestHandlerLogger

from binder_onprem import config as configuration

if TYPE_CHECKING:
    import socket

    from binder_onprem.config import Config

PATH: Final = "/sample.git"
NOTEBOOK: Final = "index.ipynb"
BRANCH: Final = b"refs/heads/main"
AUTHOR: Final = b"Binder <binder@localhost>"
DATE: Final = 1767225600
"""2026-01-01 00:00 UTC; fixed, so that the commit, and with it the image's name, is the same on every machine."""

REQUEST_BYTES: Final = 1024**2
CONNECTIONS: Final = 16
"""Served at once; further ones wait in the listening socket's queue."""

_log = logging.getLogger(__name__)


def sample_url(config: Config) -> str:
    """Where the repository can be cloned from, on this machine."""
    return f"http://127.0.0.1:{config.samples_port}{PATH}"


def sample_link(config: Config) -> str:
    """The link to click: the sample repository with its notebook open in JupyterLab."""
    return f"{config.public_url}v2/git/{quote(sample_url(config), safe='')}/main?urlpath=lab/tree/{NOTEBOOK}"


def repository() -> MemoryRepo:
    """The sample repository with its one commit."""
    tree = Tree()
    blobs = []
    for item in sorted((resources.files("binder_onprem.host") / "sample").iterdir(), key=lambda item: item.name):
        if item.is_file():
            blobs.append(Blob.from_string(item.read_bytes()))
            tree.add(item.name.encode(), stat.S_IFREG | 0o644, blobs[-1].id)
    commit = Commit()
    commit.tree = tree.id
    commit.author = commit.committer = AUTHOR
    commit.author_time = commit.commit_time = DATE
    commit.author_timezone = commit.commit_timezone = 0
    commit.encoding = b"UTF-8"
    commit.message = b"A notebook with a figure\n"
    repo = MemoryRepo()
    repo.object_store.add_objects([(thing, None) for thing in (*blobs, tree, commit)])
    repo.refs.set_if_equals(BRANCH, None, commit.id)
    repo.refs.set_symbolic_ref(b"HEAD", BRANCH)
    return repo


def application() -> LimitedInputFilter:
    """The WSGI application: fetching only."""
    git = HTTPGitApplication(DictBackend({PATH: repository(), PATH.removesuffix(".git"): repository()}))
    del git.handlers[b"git-receive-pack"]
    return LimitedInputFilter(GunzipFilter(git), max_request_size=REQUEST_BYTES)


class SampleServer(ThreadingMixIn, WSGIServer):
    """A few connections at once, each with a time limit."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(*arguments, **options)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Wait for room, then serve in a thread."""
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Serve, then make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class Connection(WSGIRequestHandlerLogger):  # type: ignore[misc] # dulwich is not followed by the type checker
    """One connection; a silent one ends."""

    timeout = 30

    def address_string(self) -> str:
        """The address without asking the name service."""
        return str(self.client_address[0])


def server(port: int) -> SampleServer:
    """The listening server; the caller runs it.

    Args:
        port: On loopback; 0: any.
    """
    made = make_server("127.0.0.1", port, application(), server_class=SampleServer, handler_class=Connection)
    if not isinstance(made, SampleServer):
        raise TypeError("server_class")
    return made


def main() -> None:
    """Serve until ended."""
    config = configuration.load()
    with server(config.samples_port) as listening:
        _log.info("serving the sample repository", extra={"port": config.samples_port})
        listening.serve_forever()


if __name__ == "__main__":
    main()
