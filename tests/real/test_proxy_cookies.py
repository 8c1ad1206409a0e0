"""What the proxy passes on to whom: sessions run anybody's code, and never see what says who somebody is."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from binder_onprem.host.parts import PROXY
from tests.e2e.stand import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.real

COOKIES = "a=1; binder-onprem-login=secret; jupyterhub-session-id=secret; _xsrf=2;binder-onprem-way-1=secret; username-x=3"
OF_THE_SITE = {
    "Service-Worker-Allowed": "/",
    "Cross-Origin-Opener-Policy": "same-origin",
    "clear-site-data": '"*"',
    "NEL": '{"report_to": "x", "max_age": 9, "success_fraction": 1}',
    "Report-To": '{"group": "x", "max_age": 9, "endpoints": [{"url": "https://evil.example"}]}',
    "Alt-Svc": 'h2="evil.example:443"',
    "Strict-Transport-Security": "max-age=9",
}
PROGRAM = Path(sys.prefix) / "node" / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"


async def echo(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Upgrade"):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.headers.get("Cookie", ""))
        await socket.close()
        return socket
    response = web.Response(text=request.headers.get("Cookie", ""), headers=OF_THE_SITE | {"X-Own": "own"})
    for name in ("_xsrf", "binder-onprem-login", "jupyterhub-session-id"):
        response.set_cookie(name, "1")
    return response


def started(port: int) -> subprocess.Popen[bytes]:
    command = [shutil.which("node") or "node", f"--require={PROXY}", str(PROGRAM), "--ip=127.0.0.1", f"--port={port}", "--api-ip=127.0.0.1"]
    return subprocess.Popen([*command, f"--api-port={port + 1}", f"--default-target=http://127.0.0.1:{port + 2}"])


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[aiohttp.ClientSession, int]]:
    """A proxy in front of a daemon and a session, and its port."""
    port = free_ports(4)
    async with AsyncExitStack() as stack:
        for host, number in (("127.0.0.1", port + 2), ("127.213.0.1", port + 3)):
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", echo)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, host, number).start()
        process = started(port)
        stack.callback(process.wait)
        stack.callback(process.kill)
        client = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        await _answers(client, port)
        route = f"http://127.0.0.1:{port + 1}/api/routes/jupyter/user/ada/x"
        async with client.post(route, json={"target": f"http://127.213.0.1:{port + 3}"}) as answer:
            assert answer.status == 201
        yield client, port


async def test_a_session_gets_its_own_cookies_and_the_daemon_all() -> None:
    async with proxied() as (client, port):
        # However the path is written: it is where the request goes that counts.
        for path in ("/jupyter/user/ada/x/lab", "/jupyter/%75ser/ada/x/lab", "/jupyter/user/ada/x/?next=/hub/"):
            assert await _seen(client, port, path) == "a=1; _xsrf=2; username-x=3", path
        assert await _seen(client, port, "/jupyter/user/ada/x", cookies="binder-onprem-login=secret") == ""
        assert await _seen(client, port, "/v2/gh/o/r/HEAD") == COOKIES
        async with client.ws_connect(f"http://127.0.0.1:{port}/jupyter/user/ada/x/api/kernels", headers={"Cookie": COOKIES}) as socket:
            assert (await socket.receive()).data == "a=1; _xsrf=2; username-x=3"


async def test_what_a_session_answers_says_nothing_about_the_rest_of_the_site() -> None:
    """A service worker with the whole site for its scope would answer in place of our pages."""
    async with proxied() as (client, port):
        for path, given in (("/jupyter/user/ada/x/worker.js", set()), ("/jupyter/%75ser/ada/x/", set()), ("/v2/gh/o/r/HEAD", set(OF_THE_SITE))):
            async with client.get(URL(f"http://127.0.0.1:{port}{path}", encoded=True)) as answer:
                assert {name for name in OF_THE_SITE if name in answer.headers} == given, path
                assert answer.headers["X-Own"] == "own"
                assert set(answer.cookies) == ({"_xsrf", "binder-onprem-login", "jupyterhub-session-id"} if given else {"_xsrf"})


async def _seen(client: aiohttp.ClientSession, port: int, path: str, cookies: str = COOKIES) -> str:
    async with client.get(URL(f"http://127.0.0.1:{port}{path}", encoded=True), headers={"Cookie": cookies}) as answer:
        return await answer.text()


async def _answers(client: aiohttp.ClientSession, port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with client.get(f"http://127.0.0.1:{port + 1}/api/routes"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
