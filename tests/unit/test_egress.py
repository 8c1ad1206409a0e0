"""The gate, spoken to by bytes: what passes, what is refused, what floods and half-open connections leave behind (nothing)."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from binder_onprem.config import Config
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.egress.gate import AUDIT_LINES, REFUSAL, Gate
from binder_onprem.egress.outbound import Outbound, SiteProxy, bypasses
from binder_onprem.egress.relay import absolute, end_to_end
from binder_onprem.errors import AddressRefused, ConfigError, HostUnfit
from binder_onprem.host.gates import gates
from binder_onprem.host.sources import Sources
from tests.unit.loopback import Heard, Say, answer, dripping, listening, reset, silence

POOL = "10.213.0.0/16"


def rules(*allow: str, query: Callable[[str, int], list[str]] | None = None) -> AddressRules:
    return AddressRules(allow, POOL, query=query or (lambda _host, _port: ["127.0.0.1"]))


@asynccontextmanager
async def gate(folder: Path, subject: Gate) -> AsyncIterator[Callable[..., "asyncio.Future[bytes]"]]:
    """A served gate; what is yielded sends bytes and gives back everything until the gate closes."""
    path = folder / "gate.sock"

    async def say(data: bytes, *, shut: bool = False, until: bytes | None = None) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(data)
            if shut:
                writer.write_eof()
            return await (reader.readuntil(until) if until else reader.read())
        finally:
            writer.transport.abort()

    async with subject.serving(path, None):
        yield lambda *args, **kwargs: asyncio.ensure_future(asyncio.wait_for(say(*args, **kwargs), 10))
    assert subject.clients == 0


def get(url: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {url} HTTP/1.1", "Host: ignored.example", *headers, "", ""]).encode()


def allowing(**more: float) -> Gate:
    return Gate(rules("127.0.0.0/8"), frozenset(), **more)  # type: ignore[arg-type]


async def test_a_plain_request(tmp_path: Path) -> None:
    say = answer("200 OK", b"hello", "X-End: 1", "Keep-Alive: timeout=5")
    async with listening(say) as heard, gate(tmp_path, allowing()) as ask:
        headers = (
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic Y2FuYXJ5",
            "Connection: X-Hop",
            "X-Hop: 1",
            "TE: trailers",
            "X-Keep: 2",
        )
        got = await ask(get(f"{heard.url}/a?b=c%20d", *headers), until=b"hello")
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert b"x-end: 1" in got.lower()
    assert b"keep-alive: timeout" not in got.lower()
    sent = heard.requests[0].lower()
    assert sent.startswith(b"get /a?b=c%20d http/1.1\r\n")
    assert f"host: 127.0.0.1:{heard.port}\r\n".encode() in sent
    assert b"x-keep: 2" in sent
    assert not any(word in sent for word in (b"proxy-", b"x-hop", b"te:", b"ignored.example", b"connection"))


async def test_several_requests_on_one_connection(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
            heard.requests.append(await reader.readuntil(b"\r\n\r\n"))

    async with listening(say) as heard, gate(tmp_path, allowing()) as ask:
        got = await ask(get(f"{heard.url}/1") + get(f"{heard.url}/2") + get(f"{heard.url}/3", "Connection: close"))
        assert got.count(b"HTTP/1.1 200") == 3
        assert heard.connections == 1, "the same host is not connected to again"


async def test_bodies_both_ways_chunked_and_counted(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n")

    bodies: list[bytes] = []
    async with listening(say) as heard, gate(tmp_path, allowing()) as ask:
        target = heard.url.encode()
        got = await ask(b"POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" % target, until=b"0\r\n\r\n")
        assert b"wiki" in got
        await ask(b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" % target, until=b"0\r\n\r\n")
        await ask(b"POST %s/ HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello" % target, until=b"wiki")
    assert bodies[0].startswith(b"5\r\nhello")
    assert bodies[1:] == [b"hello", b"hello"]


async def test_expect_100_continue(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(2)
        await answer("201 Created")(reader, writer)

    async with listening(say) as heard, gate(tmp_path, allowing()):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "gate.sock")
        writer.write(b"PUT %s/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n" % heard.url.encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"ab")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201")
        writer.close()


async def test_a_tunnel_with_early_bytes_and_half_close(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")

    async with listening(echo) as heard, gate(tmp_path, allowing()) as ask:
        blob = os.urandom(3_000_000)
        got = await ask(f"CONNECT 127.0.0.1:{heard.port} HTTP/1.1\r\nHost: x\r\n\r\nstart\r\n\r\n".encode() + blob, shut=True)
    head, _, rest = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert rest == blob + b"bye"


REFUSED = (
    *(
        "10.0.0.1:443",
        "127.0.0.1:80",
        "[::1]:443",
        "169.254.169.254:80",
        "0x7f.1:80",
        "2130706433:443",
        "localhost:443",
        "localhost.:443",
        "inside.example:443",
    ),
    *("8.8.8.8:25", "8.8.8.8:3306", "10.213.0.5:80", "[::ffff:127.0.0.1]:443", "[fe80::1%25lo]:443", "-x:443", "1:443"),
)


@pytest.mark.parametrize("target", REFUSED)
async def test_refusals_are_all_alike(tmp_path: Path, target: str) -> None:
    async with gate(tmp_path, Gate(rules(), frozenset())) as ask:
        for request in (f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), get(f"http://{target}/")):
            got = await ask(request)
            assert got.startswith(f"HTTP/1.1 403 {REFUSAL}".encode())
            assert got.endswith(f"\r\n\r\n{REFUSAL}\n".encode())


async def test_open_and_closed_ports_cannot_be_told_apart(tmp_path: Path) -> None:
    async with listening(answer()) as heard, gate(tmp_path, Gate(rules(), frozenset())) as ask:
        answers = {await ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) for port in (heard.port, 1)}
        assert len(answers) == 1
        assert heard.connections == 0


async def test_a_name_that_turns_private_gets_no_packet(tmp_path: Path) -> None:
    replies = iter([["8.8.8.8", "127.0.0.1"], ["127.0.0.1"]])
    subject = rules(query=lambda _host, _port: next(replies))
    assert await subject.lookup("rebind.example", 443) == ["8.8.8.8"]
    async with listening(answer()) as heard, gate(tmp_path, Gate(subject, frozenset())) as ask:
        assert (await ask(b"CONNECT rebind.example:443 HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 403")
        assert heard.connections == 0


async def test_mirrors_pass_by_host_and_port_and_alone(tmp_path: Path) -> None:
    async with listening(answer("200 OK", b"index")) as heard:
        subject = Gate(rules("127.0.0.0/8"), {("Mirror.Inside.", heard.port)}, True)  # noqa: FBT003
        async with gate(tmp_path, subject) as ask:
            assert b"index" in await ask(get(f"http://mirror.inside:{heard.port}/simple/", "Connection: close"))
            for url in (f"http://mirror.inside:{heard.port + 1}/", f"http://127.0.0.1:{heard.port}/", "http://8.8.8.8/"):
                assert (await ask(get(url))).startswith(b"HTTP/1.1 403")


MALFORMED = (
    *(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET https://x.org/ HTTP/1.1\r\nHost: x\r\n\r\n", b"GET ftp://x.org/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    *(
        b"CONNECT x.org HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x.org:0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x.org:99999 HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    *(b"GET http://u:p@x.org/ HTTP/1.1\r\nHost: x\r\n\r\n", b"GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
    *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50 + b"\r\n\r\n", b"\0" * 100 + b"\r\n\r\n", b"GET http://x.org/ HTTP/9.9\r\n\r\n"),
    *(
        b"GET http://x.org/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET http://x.org/\r\n\r\n",
        b"GET http://x.org/ HTTP/1.1\r\n Host: x\r\n\r\n",
    ),
    b"POST http://8.8.8.8/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST http://8.8.8.8/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"GET http://x.org/ HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
)


@pytest.mark.parametrize("data", MALFORMED)
async def test_garbage_gets_an_error_and_no_connection(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    def never(_host: str, _port: int) -> list[str]:
        raise AssertionError("nothing is looked up for garbage")

    async with gate(tmp_path, Gate(rules(query=never), frozenset())) as ask:
        got = await ask(data, shut=True)
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), got[:80]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_nothing_is_smuggled_behind_a_message(tmp_path: Path) -> None:
    smuggled = b"GET http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n"
    async with listening(answer("200 OK", b"ok")) as heard, gate(tmp_path, allowing()) as ask:
        both = b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s"
        await ask(both % (heard.url.encode(), 5 + len(smuggled), smuggled), shut=True)
        await ask(get(f"{heard.url}/") + smuggled, shut=True)
    assert not any(b"10.0.0.1" in request for request in heard.requests)


async def test_a_client_that_drips_its_head_is_dropped(tmp_path: Path) -> None:
    async with gate(tmp_path, allowing(head=0.15)):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "gate.sock")
        started = asyncio.get_running_loop().time()
        for _ in range(10):
            writer.write(b"G")
            await asyncio.sleep(0.03)
        await asyncio.wait_for(reader.read(), 3)
        assert asyncio.get_running_loop().time() - started < 2
        writer.close()


async def test_a_tunnel_where_nothing_moves_ends(tmp_path: Path) -> None:
    async with listening(silence()) as heard, gate(tmp_path, allowing(idle=0.2)) as ask:
        got = await ask(f"CONNECT 127.0.0.1:{heard.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert got.startswith(b"HTTP/1.1 200")
        assert (await ask(get(f"{heard.url}/"))).startswith(b"HTTP/1.1 502")


@pytest.mark.parametrize("say", [reset(), dripping(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 20_000, 0), dripping(b"garbage\r\n\r\n", b"x", 1)])
async def test_servers_that_break_give_502(tmp_path: Path, say: Say) -> None:
    async with listening(say) as heard, gate(tmp_path, allowing(idle=1)) as ask:
        assert (await ask(get(f"{heard.url}/"))).startswith(b"HTTP/1.1 502")


async def test_half_a_body_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    async with listening(say) as heard, gate(tmp_path, allowing()) as ask:
        try:
            got = await ask(get(f"{heard.url}/"))
        except ConnectionResetError:
            got = b""
        assert not got.endswith(b"0\r\n\r\n")


async def test_a_closed_port_is_a_502(tmp_path: Path) -> None:
    async with listening(answer()) as heard:
        port = heard.port
    async with gate(tmp_path, allowing()) as ask:
        assert (await ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).startswith(b"HTTP/1.1 502")


async def test_a_flood_leaves_nothing_behind_and_the_gate_goes_on(tmp_path: Path) -> None:
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with listening(answer("200 OK", b"ok")) as heard, gate(tmp_path, allowing(connections=50)) as ask:
        idle = [await asyncio.open_unix_connection(tmp_path / "gate.sock") for _ in range(50)]
        await asyncio.sleep(0.1)
        over = await asyncio.gather(*(ask(get(f"{heard.url}/"), until=b"\r\n\r\n") for _ in range(20)))
        assert all(got.startswith(b"HTTP/1.1 503") for got in over)
        for _, writer in idle:
            writer.transport.abort()
        await asyncio.sleep(0.6)
        assert b"ok" in await ask(get(f"{heard.url}/", "Connection: close"))
    await asyncio.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= files + 2  # noqa: PTH208


async def test_a_client_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.egress.relay.GRACE", 0.1)
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with (
        listening(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"a" * 500_000, 0)) as heard,
        gate(tmp_path, allowing(idle=0.3)) as _,
    ):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "gate.sock", limit=1000)
        writer.write(get(f"{heard.url}/"))
        await reader.readline()
        await asyncio.sleep(1)
        writer.transport.abort()
    await asyncio.sleep(0.3)
    assert len(os.listdir("/proc/self/fd")) <= files + 2  # noqa: PTH208


async def test_slow_names_of_builds_do_not_delay_others(tmp_path: Path) -> None:
    def query(host: str, _port: int) -> list[str]:
        if host.startswith("slow"):
            time.sleep(0.5)
        return ["8.8.8.8"]

    subject = rules(query=query)
    async with gate(tmp_path, Gate(subject, frozenset())) as ask:
        flood = [ask(f"CONNECT slow{number}.example:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode()) for number in range(40)]
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await subject.lookup("quick.example", 443)
        assert time.monotonic() - started < 0.3
        for waiting in flood:
            waiting.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def test_closing_ends_every_tunnel(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(silence()) as heard:
        subject = allowing()
        async with subject.serving(tmp_path / "gate.sock", None):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "gate.sock")
            writer.write(f"CONNECT 127.0.0.1:{heard.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            assert subject.clients == 1
        assert subject.clients == 0
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
    assert not caplog.records


async def test_the_audit_names_the_host_cut_and_is_itself_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with gate(tmp_path, Gate(rules(), frozenset())) as ask:
        for _ in range(AUDIT_LINES + 20):
            await ask(f"CONNECT {'a' * 300}.example:443 HTTP/1.1\r\nHost: x\r\nCookie: canary\r\n\r\n".encode())
    lines = [record for record in caplog.records if getattr(record, "event", "") == "egress_refused"]
    assert len(lines) == AUDIT_LINES
    assert vars(lines[0])["host"] == "a" * 100
    assert "canary" not in caplog.text


async def test_both_listeners_and_words_when_one_cannot_be(tmp_path: Path) -> None:
    async with listening(answer("200 OK", b"ok")) as heard:
        with pytest.raises(HostUnfit, match="cannot be bound"):
            async with allowing().serving(tmp_path / "gate.sock", ("127.0.0.1", heard.port)):
                pass
        with pytest.raises(HostUnfit, match="cannot be bound"):
            async with allowing().serving(tmp_path / "gate.sock", ("192.0.2.77", 1)):
                pass
        with pytest.raises(HostUnfit, match="cannot be made"):
            async with allowing().serving(tmp_path / ("x" * 200), None):
                pass
        async with allowing().serving(tmp_path / "new" / "gate.sock", None):
            assert (tmp_path / "new" / "gate.sock").stat().st_mode & 0o777 == 0o666


@asynccontextmanager
async def chained(
    folder: Path, say: Say, *no_proxy: str, mirrors: frozenset[tuple[str, int]] = frozenset()
) -> AsyncIterator[tuple[Heard, Callable[..., "asyncio.Future[bytes]"]]]:
    async with listening(say) as proxy:
        subject = Gate(rules(), mirrors, proxy=f"http://user:canary@127.0.0.1:{proxy.port}", no_proxy=no_proxy)
        async with gate(folder, subject) as ask:
            yield proxy, ask


async def test_through_the_sites_proxy(tmp_path: Path) -> None:
    async with chained(tmp_path, answer("200 OK", b"via"), mirrors=frozenset({("mirror.inside", 3141)})) as (proxy, ask):
        assert b"via" in await ask(get("http://git.example.org/x", "Connection: close"))
        assert b"via" in await ask(get("http://mirror.inside:3141/x", "Connection: close"))
        for url in ("http://10.0.0.1/", "http://intranet/", "http://localhost/", "http://git.example.org:3000/"):
            assert (await ask(get(url))).startswith(b"HTTP/1.1 403")
        assert proxy.requests[0].startswith(b"GET http://git.example.org/x HTTP/1.1")
        assert b"proxy-authorization: basic dxnlcjpjyw5hcnk=" in proxy.requests[0].lower()
        assert len(proxy.requests) == 2


async def test_tunnels_through_the_sites_proxy(tmp_path: Path) -> None:
    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nbytes of the host")

    async with chained(tmp_path, say) as (proxy, ask):
        got = await ask(b"CONNECT git.example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200")
        assert got.endswith(b"\r\n\r\nbytes of the host")
        assert proxy.requests[0].startswith(b"CONNECT git.example.org:443 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjpjYW5hcnk=" in proxy.requests[0]


@pytest.mark.parametrize("say", [answer("407 Auth"), answer("403 No"), reset(), dripping(b"x", b"y" * 30_000, 0)])
async def test_the_sites_proxy_refuses(tmp_path: Path, say: Say) -> None:
    async with chained(tmp_path, say) as (_, ask):
        assert (await ask(b"CONNECT git.example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 502")


async def test_mirrors_only_holds_behind_a_proxy() -> None:
    outbound = Outbound(rules(), {("mirror.inside", 80)}, mirrors_only=True, proxy="http://127.0.0.1:1")
    with pytest.raises(AddressRefused):
        await outbound.open("git.example.org", 443)


@pytest.mark.parametrize(
    ("entry", "host", "port", "hit"),
    [
        ("*", "a.org", 80, True),
        ("a.org", "a.org", 80, True),
        ("a.org", "x.a.org", 80, True),
        (".a.org", "x.a.org", 80, True),
        ("*.a.org", "x.a.org", 80, True),
        ("a.org", "xa.org", 80, False),
        ("a.org:81", "a.org", 80, False),
        ("a.org:80", "a.org", 80, True),
        ("10.0.0.0/8", "10.1.1.1", 80, True),
        ("10.0.0.0/8", "11.1.1.1", 80, False),
        ("10.0.0.0/99", "10.1.1.1", 80, False),
        ("[::1]", "::1", 80, True),
        ("fd00::/8", "10.0.0.1", 80, False),
        ("", "a.org", 80, False),
        ("a:b:c", "a.org", 80, False),
        ("x:y", "a.org", 80, False),
    ],
)
def test_no_proxy(entry: str, host: str, port: int, hit: bool) -> None:  # noqa: FBT001
    assert bypasses(host, port, (entry,)) is hit


@pytest.mark.parametrize("url", ["socks5://h:1", "http://", "http://h:99999", "http://canary:canary@0x7f.1"])
def test_proxies_that_do_not_hold(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SiteProxy.read(url)
    assert "canary" not in caught.value.message


def test_proxies() -> None:
    assert SiteProxy.read("proxy.inside:3128") == SiteProxy("proxy.inside", 3128, tls=False)
    assert SiteProxy.read("https://proxy.inside") == SiteProxy("proxy.inside", 443, tls=True)
    assert "canary" not in repr(SiteProxy.read("http://u:canary@h"))


def test_targets() -> None:
    assert absolute(b"HTTP://[::1]:81?x") == ("[::1]", 81, b"[::1]:81", b"/?x")
    assert absolute(b"http://a.org/b://c?d/e") == ("a.org", 80, b"a.org", b"/b://c?d/e")


def test_framing_headers_cannot_be_dropped_by_name() -> None:
    pairs = [(b"connection", b"content-length, x"), (b"content-length", b"5"), (b"x", b"1")]
    assert end_to_end(pairs) == [(b"content-length", b"5")]


async def test_builds_that_reach_mirrors_only_do_not_keep_clones_from_hosts_of_links(tmp_path: Path) -> None:
    config = Config.model_validate({"network": {"builds": "mirrors", "allow": ["127.0.0.0/8"]}})
    given = Sources(b"", None, "", None, None, None, None, (), frozenset({("mirror.example.org", 80)}))
    clones, builds = gates(config, given, rules("127.0.0.0/8"))
    async with listening(answer("200 OK", b"here")) as heard:
        async with gate(tmp_path, clones) as ask:
            assert b"here" in await ask(get(f"{heard.url}/", "Connection: close"))
        async with gate(tmp_path, builds) as ask:
            assert (await ask(get(f"{heard.url}/"))).startswith(b"HTTP/1.1 403")


async def test_clones_reach_no_mirror_that_links_may_not_name(tmp_path: Path) -> None:
    async with listening(answer("200 OK", b"here")) as heard:
        given = Sources(b"", None, "", None, None, None, None, (), frozenset({("127.0.0.1", heard.port)}))
        clones, builds = gates(Config(), given, rules())
        async with gate(tmp_path, clones) as ask:
            assert (await ask(get(f"{heard.url}/"))).startswith(b"HTTP/1.1 403")
        async with gate(tmp_path, builds) as ask:
            assert b"here" in await ask(get(f"{heard.url}/", "Connection: close"))
