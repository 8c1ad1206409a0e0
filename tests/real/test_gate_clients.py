"""Package clients, configured as the host's, through forwarder and gate to the host's own mirrors and to nothing else."""

import asyncio
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from binder_onprem.config import Config
from binder_onprem.egress import forward
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.egress.gate import Gate
from binder_onprem.host import sources

pytestmark = pytest.mark.real


async def through_gate(
    folder: Path, *command: str, mirrors: frozenset[tuple[str, int]], around: tuple[str, ...] = (), **more: str
) -> tuple[int | None, str]:
    socket = folder / "gate.sock"
    async with Gate(AddressRules((), "10.213.0.0/16"), mirrors, mirrors_only=True).serving(socket, None):
        words = [*around, sys.executable, forward.__file__, str(socket), "--", *command]
        env = {
            **os.environ,
            "UV_CACHE_DIR": str(folder / "cache"),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "UV_HTTP_RETRIES": "0",
            "npm_config_fetch_retries": "0",
            "npm_config_cache": str(folder / "npm"),
            "UV_SYSTEM_CERTS": "1",
            **more,
        }
        child = await asyncio.create_subprocess_exec(*words, env=env, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        out, _ = await asyncio.wait_for(child.communicate(), 120)
    return child.returncode, out.decode(errors="replace")


CLIENTS = {
    "uv": ("uv", "pip", "install", "--target", "there", "six"),
    "pip": ("pip", "download", "--no-deps", "--dest", "there", "six"),
    "npm": ("npm", "view", "left-pad", "version"),
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_clients_work_with_the_mirrors(tmp_path: Path, client: str) -> None:
    site = Config(home=tmp_path)
    (tmp_path / "etc").mkdir()
    await asyncio.to_thread(sources.learn, site)
    code, out = await through_gate(tmp_path, *CLIENTS[client], mirrors=sources.read(site).hosts)
    assert code == 0, out


@pytest.mark.parametrize("client", ["uv", "npm"])
async def test_and_fail_without(tmp_path: Path, client: str) -> None:
    code, out = await through_gate(tmp_path, *CLIENTS[client], "--no-cache" if client == "uv" else "--prefer-online", mirrors=frozenset())
    assert code, out


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def index(folder: Path) -> Iterator[int]:
    """A package index on this machine's loopback with one package; its port."""
    (folder / "simple" / "canary").mkdir(parents=True)
    wheel = folder / "simple" / "canary" / "canary-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("canary.py", "SINGS = True\n")
        file.writestr("canary-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: canary\nVersion: 1.0\n")
        file.writestr("canary-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("canary-1.0.dist-info/RECORD", "canary.py,,\ncanary-1.0.dist-info/METADATA,,\ncanary-1.0.dist-info/WHEEL,,\n")
    (folder / "simple" / "canary" / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


LONELY = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "lonely")
"""A network namespace of its own, as a container without network has it."""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("command", [("uv", "pip", "install", "--target", "there", "canary"), ("pip", "install", "--target", "there", "canary")])
async def test_a_mirror_on_this_machines_own_loopback(tmp_path: Path, host: str, command: tuple[str, ...]) -> None:
    with index(tmp_path / "index") as port:
        site = Config.model_validate({"home": tmp_path, "mirrors": {"pypi": f"http://{host}:{port}/simple"}})
        given = sources.read(site)
        assert given.on_loopback == (host,)
        own = {"PIP_INDEX_URL": str(given.pypi), "UV_DEFAULT_INDEX": str(given.pypi), "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}
        code, out = await through_gate(tmp_path, *command, mirrors=given.hosts, around=LONELY, **own, BINDER_DIRECT=given.direct)
        assert code == 0, out
        assert (tmp_path / "there" / "canary.py").read_text() == "SINGS = True\n"
        command = tuple("elsewhere" if word == "there" else word for word in command)
        code, out = await through_gate(tmp_path, *command, "--no-cache-dir", mirrors=given.hosts, around=LONELY, **own)
        assert code, "without being told, a client asks its own loopback"
