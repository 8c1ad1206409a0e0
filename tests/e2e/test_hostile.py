"""Hostile links: a clear error in at most a second, no process started, no address reached."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextlib import closing
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from tests.e2e.stand import Stand, launch

pytestmark = pytest.mark.real

LONG = "x" * 100_000
SPECS = [
    "git/-x/HEAD",
    f"git/{quote('--upload-pack=touch /tmp/canary', safe='')}/HEAD",
    f"git/{quote('ext::sh -c touch% /tmp/canary', safe='')}/HEAD",
    f"git/{quote('file:///etc', safe='')}/HEAD",
    f"git/{quote('/etc', safe='')}/HEAD",
    f"git/{quote('ssh://-oProxyCommand=touch /tmp/canary/x', safe='')}/HEAD",
    f"git/{quote('https://x/y', safe='')}/{quote('--upload-pack=x', safe='')}",
    f"git/{quote('https://x/y', safe='')}/{quote('refs/../..', safe='')}",
    f"git/{quote('https://x/y', safe='')}/{quote('@{-1}', safe='')}",
    f"git/{quote('https://user:secret@x.example/y', safe='')}/HEAD",
    "git/https%3A%2F%2Fx%2Fy%00z/HEAD",
    "git/https%3A%2F%2Fx%2Fy%0d%0aHost:%20z/HEAD",
    "gh/-a/b/HEAD",
    "gh/a%2F..%2Fb/c/HEAD",
    "gl/a/HEAD",
    "nope/a/b/HEAD",
    f"gh/{LONG}/b/HEAD"[:15_000],
    *(
        f"git/{quote(f'http://{host}/x', safe='')}/HEAD"
        for host in (
            "10.1.2.3",
            "172.16.1.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0x0a.1.2.3",
            "167838211",
            "[fd00::1]",
            "[::ffff:10.1.2.3]",
            "0.0.0.0",  # noqa: S104 - as a target
            "10.1.2.3.",
        )
    ),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec[:60])
async def test_a_hostile_link_fails_clearly_and_at_once(stand: Stand, spec: str) -> None:
    began = time.monotonic()
    end, _ = await launch(stand, spec)
    assert end["phase"] == "failed"
    assert time.monotonic() - began < 5  # one second, and the machine's other work
    assert 400 <= end["status_code"] < 500, end
    assert len(end["message"]) > 20
    assert "secret" not in end["message"]
    for internal in ("Traceback", "/usr", "/work", str(stand.home), "stderr"):
        assert internal not in end["message"]


async def test_a_path_that_climbs_is_no_launch(stand: Stand) -> None:
    async with aiohttp.ClientSession() as session, session.get(URL(f"{stand.url}build/gh/../../etc/HEAD", encoded=True)) as answer:
        assert answer.status == 404


def test_100_kilobytes_are_refused(stand: Stand) -> None:
    with socket.create_connection(("127.0.0.1", stand.port), timeout=5) as connection:
        connection.sendall(f"GET /build/gh/{LONG}/b/HEAD HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        answer = connection.recv(4096)
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 414", b"HTTP/1.1 431", b"HTTP/1.1 200")


async def test_our_own_ports_are_never_reached_by_a_link(stand: Stand) -> None:
    """Loopback is allowed in this stand's settings; what listens there of ours is not."""
    messages = set()
    for offset in range(7):
        if offset == 5:
            continue  # the sample repository is there to be launched
        end, _ = await launch(stand, f"git/{quote(f'http://127.0.0.1:{stand.port + offset}/x', safe='')}/HEAD")
        messages.add((end["code"], end["message"]))
    assert len(messages) == 1
    assert messages.pop()[0] == "address_refused"


async def test_no_packet_reaches_an_address_that_is_not_allowed(stand: Stand) -> None:
    """A listener on the machine's own outer address, which nobody allowed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    with closing(socket.create_server((address, 0))) as server:
        server.settimeout(0.5)
        seen: list[object] = []

        def accept() -> None:
            try:
                seen.append(server.accept())
            except OSError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        end, _ = await launch(stand, f"git/{quote(f'http://{address}:{server.getsockname()[1]}/x', safe='')}/HEAD")
        thread.join()
    assert (end["code"], seen) == ("address_refused", [])


@pytest.mark.parametrize(("path", "status"), [("build/gh/%ff", 200), ("build/git/%zz/HEAD", 200), ("%", 404), ("/", 400)])
def test_a_path_that_nobody_can_decode_is_no_failure_of_ours(stand: Stand, path: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:500]
    assert status != 200 or b'"code":"invalid_spec"' in answer


def test_who_does_not_finish_a_request_is_cut_off(stand: Stand) -> None:
    """At the public port, where the proxy stands, not only at the daemon's."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", stand.port), timeout=40)) for _ in range(50)]
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-")
        for connection in slow:
            assert connection.recv(4096)[:12] in (b"", b"HTTP/1.1 408")
