"""What the playbooks put in front of a Binder: TLS, redirect, ACME. And pages of another origin."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from jinja2 import Environment, StrictUndefined

from tests.real.tlsregistry import certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TEMPLATES: Final = Path(__file__).parents[2] / "playbooks" / "roles" / "binder" / "templates"
HSTS: Final = 31536000


@dataclass(frozen=True)
class Front:
    """The playbooks' front of a Binder, on loopback, in a folder in place of ``/etc``, ``/run`` and ``/var/lib``."""

    folder: Path
    port: int
    variables: dict[str, Any]

    @property
    def certificate(self) -> Path:
        """Key and chain, as nginx reads them."""
        return self.folder / "certificate.pem"

    def write(self, template: str, name: str) -> Path:
        """A file as the role `binder` makes it."""
        environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
        environment.filters["quote"] = shlex.quote
        file = self.folder / name
        file.write_text(environment.from_string((TEMPLATES / template).read_text(encoding="utf-8")).render(self.variables), encoding="utf-8")
        return file

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run nginx as the unit does, reload by SIGHUP; its workers read the folder, which is root's."""
        file = self.write("front.conf.j2", "front.conf")
        command = ["/usr/sbin/nginx", "-g", "user root;", "-c", str(file), "-e", "stderr"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            _answers(self.port)
            yield process
        finally:
            process.terminate()
            process.wait(20)


def front(folder: Path, port: int, to: int, **other: Any) -> Front:
    """One that serves ``https://127.0.0.1:port`` from the Binder on port `to`, with a certificate of a test's CA; `other`: the role's variables."""
    _, certificate, key = certificates(folder / "tls")
    (folder / "certificate.pem").write_text(key.read_text() + certificate.read_text())
    (folder / "webroot").mkdir()
    variables = {
        "binder_host": "127.0.0.1",
        "binder_https_port": port,
        "binder_http_port": 0,
        "binder_acme": {},
        "binder_front_addresses": ["127.0.0.1"],
        "binder_front_hsts": HSTS,
        "binder_front_origin": f"https://{other.get('binder_host', '127.0.0.1')}:{port}",
        "binder_front_root": str(folder),
        "binder_front_run": str(folder),
        "binder_front_to": to,
    }
    return Front(folder, port, variables | other)


@contextmanager
def nginx(folder: Path, port: int, to: int, prefix: str) -> Iterator[str]:
    """Serve ``https://127.0.0.1:port`` + prefix from the Binder on port `to`; the URL of the prefix."""
    with front(folder, port, to).serving():
        yield f"https://127.0.0.1:{port}{prefix}"


def _answers(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@asynccontextmanager
async def pages(port: int, page: Path, **folders: Path) -> AsyncIterator[str]:
    """A site of static files: ``/course.html`` and a folder for each name."""

    async def course(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(page)

    app = web.Application()
    app.router.add_get(f"/{page.name}", course)
    for name, folder in folders.items():
        app.router.add_static(f"/{name}/", folder)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()
