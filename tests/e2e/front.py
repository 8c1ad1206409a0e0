"""nginx as a site has it in front: TLS, a prefix, websockets. And pages of another origin."""

from __future__ import annotations

import subprocess
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from aiohttp import web

from tests.real.tlsregistry import certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location {prefix} {{
      proxy_pass http://127.0.0.1:{to};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_buffering off;
      proxy_read_timeout 1h;
    }}
    location / {{ return 404 "not the Binder's\\n"; }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, port: int, to: int, prefix: str) -> Iterator[str]:
    """Serve ``https://127.0.0.1:port`` + prefix from the Binder on port `to`; the URL of the prefix."""
    _, certificate, key = certificates(folder / "tls")
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=port, to=to, prefix=prefix, certificate=certificate, key=key))
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", str(file), "-e", str(folder / "error.log")], stdin=subprocess.DEVNULL)
    try:
        _started(folder)
        yield f"https://127.0.0.1:{port}{prefix}"
    finally:
        process.terminate()
        process.wait(20)


def _started(folder: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with suppress(OSError, ValueError):
            int((folder / "nginx.pid").read_text())
            return
        time.sleep(0.05)
    raise TimeoutError((folder / "error.log").read_text())


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
