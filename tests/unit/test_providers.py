"""Resolving against servers on loopback that answer well, badly, slowly and with bad intentions."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession

from binder_onprem.config import Config
from binder_onprem.egress.addresses import REFUSED, AddressRules
from binder_onprem.errors import AddressRefused, BinderError, ConfigError, ProviderUnavailable, RefNotFound
from binder_onprem.host.sources import Sources
from binder_onprem.interfaces import Provider
from binder_onprem.model import ResolvedRepo
from binder_onprem.providers import checked_session, table, trust
from binder_onprem.providers.links import escaped
from binder_onprem.providers.reader import retry_after
from tests.unit.loopback import Heard, Say, answer, dripping, listening, reset, silence

SHA, OTHER = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"


def sources(proxy: str | None = None) -> Sources:
    return Sources(b"", None, "", None, None, None, proxy, (), frozenset())


def config(heard: Heard | None = None, **resolve: float) -> Config:
    url = heard.url if heard else "http://127.0.0.1:9"
    providers = [{"kind": "git"}, {"kind": "github", "url": url, "api": f"{url}/api/v3"}, {"kind": "gitlab", "url": url}]
    return Config.model_validate({"providers": providers, "resolve": {"timeout": 0.4, "ttl": 0, "bytes": 200_000, **resolve}})


@asynccontextmanager
async def providers(site: Config, rules: AddressRules | None = None, proxy: str | None = None) -> AsyncIterator[dict[str, Provider]]:
    rules = rules or AddressRules(("127.0.0.0/8",), site.network.pool)
    async with checked_session(site, rules, sources(proxy)) as session:
        yield dict(table(site, sources(proxy), rules, session))


async def resolve(provider: Provider, path: str) -> ResolvedRepo:
    return await provider.resolve(provider.parse(path))


def advert(*refs: tuple[str, str], head: str = "# service=git-upload-pack\n") -> bytes:
    lines = [f"{sha} {name}" for sha, name in refs] or ["0" * 40 + " capabilities^{}"]
    lines[0] += "\0multi_ack agent=git/2"
    packets = b"".join(b"%04x%s\n" % (len(line) + 5, line.encode()) for line in lines)
    return (b"%04x%s0000" % (len(head) + 4, head.encode()) if head else b"") + packets + b"0000"


SMART = "Content-Type: application/x-git-upload-pack-advertisement"


async def by_git(say: Say, ref: str = "main", **limits: float) -> ResolvedRepo:
    async with listening(say) as heard, providers(config(heard, **limits)) as found:
        return await resolve(found["git"], f"{escaped(heard.url + '/r.git')}/{ref}")


REFS = (
    (OTHER, "HEAD"),
    (OTHER, "refs/heads/a/main"),
    (SHA, "refs/heads/main"),
    ("1" * 40, "refs/heads/v1"),
    ("2" * 40, "refs/tags/v1"),
    ("3" * 40, "refs/tags/v2"),
    ("4" * 40, "refs/tags/v2^{}"),
    ("4444444" + "5" * 33, "refs/pull/1/head"),
    ("abcdef0" + "1" * 33, "refs/heads/x"),
    ("abcdef0" + "2" * 33, "refs/heads/y"),
)


@pytest.mark.parametrize(
    ("ref", "commit"),
    [
        ("HEAD", OTHER),
        ("main", SHA),
        ("a/main", OTHER),
        ("v1", "1" * 40),
        ("tags/v1", "2" * 40),
        ("v2", "4" * 40),
        ("refs/tags/v2", "4" * 40),
        ("refs%2Fpull%2F1%2Fhead", "4444444" + "5" * 33),
        ("pull/1/head", "4444444" + "5" * 33),
        ("0123456", SHA),
        ("4444444455", None),
        ("44444445", "4444444" + "5" * 33),
        ("abcdef0", None),
        ("9999999", None),
        ("ain", None),
        ("heads/ain", None),
        (SHA, SHA),
    ],
)
async def test_refs_of_a_git_server(ref: str, commit: str | None) -> None:
    say = answer("200 OK", advert(*REFS), SMART)
    if commit:
        repo = await by_git(say, ref)
        assert (repo.commit, repo.path.endswith(f"/{commit}"), repo.notice) == (commit, True, None)
    else:
        with pytest.raises(RefNotFound):
            await by_git(say, ref)


async def test_master_becomes_head_with_a_notice() -> None:
    repo = await by_git(answer("200 OK", advert(*REFS), SMART), "master")
    assert repo.commit == OTHER
    assert repo.notice
    assert "master" in repo.notice


async def test_protocol_1_sha256_and_an_empty_repository() -> None:
    long = "ab" * 32
    body = b"001e# service=git-upload-pack\n0000000eversion 1\n" + advert((long, "refs/heads/main"), head="")
    assert (await by_git(answer("200 OK", body, SMART))).commit == long
    with pytest.raises(RefNotFound, match="empty"):
        await by_git(answer("200 OK", advert(), SMART), "HEAD")


async def test_a_dumb_server() -> None:
    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"ref: refs/heads/main\n" if heard.requests[-1].startswith(b"GET /r.git/HEAD ") else f"{SHA}\trefs/heads/main\n".encode()
        await answer("200 OK", body, "Content-Type: text/plain")(_reader, writer)

    async with listening(say) as heard, providers(config(heard)) as found:
        for ref in ("HEAD", "main"):
            assert (await resolve(found["git"], f"{escaped(heard.url + '/r.git')}/{ref}")).commit == SHA


@pytest.mark.parametrize(
    ("say", "error", "words"),
    [
        (answer("404 Not Found"), RefNotFound, "does not exist or is private"),
        (answer("401 Unauthorized"), RefNotFound, "does not exist or is private"),
        (answer("403 Forbidden"), RefNotFound, "does not exist or is private"),
        (answer("500 Oops"), ProviderUnavailable, "HTTP 500"),
        (answer("429 Slow", b"", "Retry-After: 17"), ProviderUnavailable, "asked too often"),
        (answer("503 Busy", b"internal secret words"), ProviderUnavailable, "HTTP 503"),
        (answer("200 OK", b"<html>internal secret words</html>", "Content-Type: text/html"), ProviderUnavailable, "not git"),
        (answer("200 OK", b"zzzz", SMART), ProviderUnavailable, "not git"),
        (answer("200 OK", b"0008xxxx", SMART), ProviderUnavailable, "not git"),
        (answer("200 OK", b"000fERR no such0000", SMART), RefNotFound, "does not exist"),
        (answer("200 OK", b"ffff" + b"a" * 10, SMART), ProviderUnavailable, "not git"),
        (answer("200 OK", advert(("x" * 40, "refs/heads/main")), SMART), ProviderUnavailable, "not git"),
        (answer("200 OK", b"a" * 300_000, SMART), ProviderUnavailable, "longer than"),
        (dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 50_000, 0), ProviderUnavailable, "longer than"),
        (dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"a", 0.05), ProviderUnavailable, "did not answer in 0.4 seconds"),
        (dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.02), ProviderUnavailable, "did not answer|broke"),
        (silence(), ProviderUnavailable, "did not answer in 0.4 seconds"),
        (reset(), ProviderUnavailable, "broke the connection"),
        (dripping(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 10_000, 0), ProviderUnavailable, "broke"),
        (answer("302 Found", b"", "Location: http://10.0.0.1/"), AddressRefused, "not one that this site connects to"),
        (answer("302 Found", b"", "Location: http://169.254.169.254/latest/"), AddressRefused, "not one that this site connects to"),
        (answer("302 Found", b"", "Location: http://[::1]/"), AddressRefused, "not one that this site connects to"),
        (answer("302 Found", b"", "Location: http://2130706433/"), AddressRefused, "connect"),
        (answer("302 Found", b"", "Location: file:///etc/passwd"), AddressRefused, "redirects"),
        (answer("302 Found", b"", "Location: http://u:p@127.0.0.1/"), AddressRefused, "redirects"),
        (answer("302 Found", b"", "Location: /again"), ProviderUnavailable, "without end"),
        (answer("302 Found"), ProviderUnavailable, "without end"),
        (answer("302 Found", b"", "Location: http://[bad/"), BinderError, "host"),
    ],
)
async def test_servers_that_answer_badly(say: Say, error: type[BinderError], words: str) -> None:
    started = time.monotonic()
    with pytest.raises(error, match=words) as caught:
        await by_git(say)
    assert time.monotonic() - started < 4
    assert "secret" not in caught.value.message
    if "too often" in words:
        assert caught.value.retry_after == pytest.approx(17, abs=1)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/r", "http://[::1]:{port}/r", "http://localhost:{port}/r", "git://127.0.0.1:{port}/r", "http://127.0.0.1:{port}/r"]
)
async def test_refused_addresses_get_no_packet_and_one_sentence(url: str) -> None:
    async with listening(answer()) as heard, providers(config(), AddressRules((), "10.213.0.0/16")) as found:
        for port in (heard.port, 1):
            with pytest.raises(AddressRefused) as caught:
                await resolve(found["git"], f"{escaped(url.format(port=port))}/main")
            assert caught.value.message == REFUSED
        assert heard.connections == 0


@pytest.mark.parametrize("scheme", ["http", "git"])
async def test_a_name_that_turns_private_gets_no_packet(scheme: str) -> None:
    answers = iter([["8.8.8.8"], ["127.0.0.1"], ["127.0.0.1"], ["::1"]])
    asked: list[str] = []

    def query(host: str, _port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    async with listening(answer()) as heard:
        rules = AddressRules(("rebind.example:1",), "10.213.0.0/16", query=query)
        assert await rules.lookup("rebind.example", 80) == ["8.8.8.8"]
        async with providers(config(), rules) as found:
            with pytest.raises(AddressRefused):
                await resolve(found["git"], f"{escaped(f'{scheme}://rebind.example:{heard.port}/r')}/main")
        assert heard.connections == 0
    assert len(asked) >= 2


async def test_the_connection_goes_to_the_checked_address_and_nobody_asks_again() -> None:
    asked: list[str] = []

    def query(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with listening(answer("200 OK", advert(*REFS), SMART)) as heard:
        rules = AddressRules(("git.inside",), "10.213.0.0/16", query=query)
        async with providers(config(), rules) as found:
            assert (await resolve(found["git"], f"{escaped(f'http://git.inside:{heard.port}/r')}/main")).commit == SHA
        assert f"Host: git.inside:{heard.port}".encode() in heard.requests[0]
    assert asked == ["git.inside"]


async def test_the_session_itself_refuses_literal_addresses() -> None:
    async with checked_session(config(), AddressRules((), "10.213.0.0/16"), sources()) as session:
        for url in ("http://127.0.0.1:1/", "http://[::1]/", "http://169.254.169.254/"):
            with pytest.raises(AddressRefused):
                await session.get(url)


async def test_ssh_is_refused_with_the_way_out() -> None:
    async with providers(config()) as found:
        with pytest.raises(AddressRefused, match="https://"):
            await resolve(found["git"], "git%40host.example%3Aa%2Fb/main")


async def test_a_git_daemon_by_packets() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int(await reader.readexactly(4), 16)
        requests.append(await reader.readexactly(size - 4))
        writer.write(advert(*REFS, head=""))
        await writer.drain()
        writer.close()

    requests: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, providers(config()) as found:
        assert (await resolve(found["git"], f"{escaped(f'git://127.0.0.1:{port}/r.git')}/v2")).commit == "4" * 40
    assert requests == [f"git-upload-pack /r.git\0host=127.0.0.1:{port}\0".encode()]


def api(answers: dict[str, tuple[str, bytes, tuple[str, ...]]], heard: Callable[[], Heard]) -> Say:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = heard().requests[-1].split(b" ")[1].decode()
        status, body, headers = answers.get(path, ("404 Not Found", b"{}", ()))
        await answer(status, body, *headers)(reader, writer)

    return say


GITHUB = {
    "/api/v3/repos/u/r/commits/main": ("200 OK", SHA.encode(), ('ETag: "1"', "X-RateLimit-Remaining: 59")),
    "/api/v3/repos/u/r/commits/feature/x": ("200 OK", json.dumps({"sha": OTHER, "files": []}).encode(), ()),
    "/api/v3/repos/u/r/commits/HEAD": ("200 OK", OTHER.encode(), ()),
    "/api/v3/repos/u/limited/commits/main": ("403 Forbidden", b"", ("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: {reset}")),
    "/api/v3/repos/u/r/commits/nope": ("422 Unprocessable", b"{}", ()),
    "/api/v3/repos/u/odd/commits/main": ("200 OK", b"[1]", ()),
    "/api/v3/repos/u/deep/commits/main": ("200 OK", b'{"a":' * 50_000, ()),
}
GITLAB = {
    "/api/v4/projects/g%2Fs%2Fp/repository/commits/main": ("200 OK", json.dumps({"id": SHA}).encode(), ()),
    "/api/v4/projects/g%2Fs%2Fp/repository/commits/feature%2Fx": ("200 OK", json.dumps({"id": OTHER}).encode(), ()),
    "/api/v4/projects/g%2Fs%2Fp/repository/commits/HEAD": ("200 OK", json.dumps({"id": OTHER}).encode(), ()),
    "/api/v4/projects/g%2Fodd/repository/commits/main": ("200 OK", b'{"id": 7}', ()),
}


@asynccontextmanager
async def hosting(
    answers: dict[str, tuple[str, bytes, tuple[str, ...]]], tokens: Path | None = None
) -> AsyncIterator[tuple[Heard, dict[str, Provider]]]:
    box: list[Heard] = []
    async with listening(api(answers, lambda: box[0])) as heard:
        box.append(heard)
        site = config(heard)
        if tokens:
            file = tokens / "token"
            file.write_text("canary-token\n")
            site = site.model_copy(
                update={"providers": tuple(part if part.kind == "git" else part.model_copy(update={"token_file": file}) for part in site.providers)}
            )
        async with providers(site) as found:
            yield heard, found


@pytest.mark.parametrize(
    ("prefix", "path", "commit", "ref_url"),
    [
        ("gh", "u/r/main", SHA, f"/u/r/tree/{SHA}"),
        ("gh", "u/r.git/feature/x", OTHER, f"/u/r/tree/{OTHER}"),
        ("gl", "g%2Fs%2Fp/main", SHA, f"/g/s/p/-/tree/{SHA}"),
        ("gl", "g%2Fs%2Fp/feature/x", OTHER, f"/g/s/p/-/tree/{OTHER}"),
        ("gh", "u/r/master", OTHER, f"/u/r/tree/{OTHER}"),
        ("gl", "g%2Fs%2Fp/master", OTHER, f"/g/s/p/-/tree/{OTHER}"),
    ],
)
async def test_hosts_with_an_api(prefix: str, path: str, commit: str, ref_url: str) -> None:
    async with hosting(GITHUB | GITLAB) as (heard, found):
        repo = await resolve(found[prefix], path)
        assert repo.commit == commit
        assert repo.ref_url == heard.url + ref_url
        assert repo.path == f"{'u/r' if prefix == 'gh' else 'g%2Fs%2Fp'}/{commit}"
        assert bool(repo.notice) == path.endswith("master")


@pytest.mark.parametrize(
    ("prefix", "path", "error"),
    [
        ("gh", "u/none/main", RefNotFound),
        ("gh", "u/r/nope", RefNotFound),
        ("gh", "u/odd/main", ProviderUnavailable),
        ("gh", "u/deep/main", ProviderUnavailable),
        ("gl", "g%2Fnone/main", RefNotFound),
        ("gl", "g%2Fodd/main", ProviderUnavailable),
    ],
)
async def test_hosts_with_an_api_that_say_no(prefix: str, path: str, error: type[BinderError]) -> None:
    async with hosting(GITHUB | GITLAB) as (_, found):
        with pytest.raises(error):
            await resolve(found[prefix], path)


async def test_githubs_rate_limit_in_binderhubs_words() -> None:
    status, body, (remaining, reset_line) = GITHUB["/api/v3/repos/u/limited/commits/main"]
    answers: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
        "/api/v3/repos/u/limited/commits/main": (status, body, (remaining, reset_line.format(reset=int(time.time()) + 700)))
    }
    async with hosting(answers) as (_, found):
        with pytest.raises(ProviderUnavailable, match=r"GitHub rate limit exceeded\. Try again in 15 minutes\.") as caught:
            await resolve(found["gh"], "u/limited/main")
        assert caught.value.retry_after


async def test_github_answers_304_to_a_known_etag() -> None:
    answers = dict(GITHUB)
    async with hosting(answers) as (heard, found):
        await resolve(found["gh"], "u/r/main")
        answers["/api/v3/repos/u/r/commits/main"] = ("304 Not Modified", b"", ())
        assert (await resolve(found["gh"], "u/r/main")).commit == SHA
        assert b"If-None-Match" not in heard.requests[0]
        assert b'If-None-Match: "1"' in heard.requests[1]


async def test_tokens_go_to_their_host_only(tmp_path: Path) -> None:
    async with listening(answer("200 OK", json.dumps({"id": SHA}).encode())) as other:
        moved, public = ("302 Found", b"", (f"Location: {other.url}/x",)), ("200 OK", b"000eversion 2\n0000", (SMART,))
        table_: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
            "/api/v3/repos/u/r/commits/main": moved,
            "/api/v4/projects/g%2Fp/repository/commits/main": moved,
            "/g/p.git/info/refs?service=git-upload-pack": public,
            "/u/r/info/refs?service=git-upload-pack": public,
        }
        async with hosting(table_, tmp_path) as (heard, found):
            await resolve(found["gl"], "g%2Fp/main")
            with pytest.raises(ProviderUnavailable):
                await resolve(found["gh"], "u/r/main")
        assert b"PRIVATE-TOKEN: canary-token" in heard.requests[0]
        assert b"canary" not in heard.requests[1]
        assert b"Git-Protocol: version=2" in heard.requests[1]
        assert b"Authorization: Bearer canary-token" in heard.requests[2]
        assert b"canary" not in b"".join(other.requests)


async def test_a_full_commit_is_taken_while_the_api_is_down() -> None:
    async with listening(answer("500 Oops")) as heard, providers(config(heard)) as found:
        assert (await resolve(found["gh"], f"u/r/{SHA}")).commit == SHA
        assert (await resolve(found["gl"], f"g%2Fp/{SHA}")).commit == SHA


async def test_through_the_sites_proxy_names_are_its_to_look_up() -> None:
    async with listening(answer("200 OK", advert(*REFS), SMART)) as proxy:
        async with providers(config(), AddressRules((), "10.213.0.0/16"), f"http://user:canary@127.0.0.1:{proxy.port}") as found:
            assert (await resolve(found["git"], f"{escaped('http://git.example.org/r')}/main")).commit == SHA
            for url in ("http://10.0.0.1/r", "http://intranet/r", "http://localhost/r", "http://x.internal/r", "http://git.example.org:8000/r"):
                with pytest.raises(AddressRefused):
                    await resolve(found["git"], f"{escaped(url)}/main")
        assert proxy.connections == 1
        assert proxy.requests[0].startswith(b"GET http://git.example.org/r/info/refs?service=git-upload-pack HTTP/1.1")
        assert b"Proxy-Authorization: Basic " in proxy.requests[0]


async def test_a_slow_host_delays_nobody_else() -> None:
    async with listening(silence()) as slow, listening(answer("200 OK", advert(*REFS), SMART)) as quick, providers(config(timeout=5)) as found:
        waiting = [asyncio.create_task(resolve(found["git"], f"{escaped(slow.url + '/r')}/b{number}")) for number in range(20)]
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await resolve(found["git"], f"{escaped(quick.url + '/r')}/main")
        assert time.monotonic() - started < 3
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for task in [*found["git"]._running.values()]:  # type: ignore[attr-defined]
            task.cancel()


async def test_the_session_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await by_git(answer("200 OK", advert(*REFS), SMART))).commit == SHA


@pytest.mark.parametrize(
    ("value", "seconds"), [("17", 17), ("999999", 3600), ("Thu, 01 Jan 1970 00:01:00 GMT", 50), ("x", None), (None, None), ("-1", None)]
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, 10) == seconds


def test_bundles_of_certificates() -> None:
    bundle = (
        "# F\N{LATIN SMALL LETTER O WITH DOUBLE ACUTE}tan\u00fas\u00edtv\u00e1ny\n".encode() + Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    )
    assert trust(replace(sources(), ca_bundle=bundle)).cert_store_stats()["x509"] > 0
    with pytest.raises(ConfigError, match="ca_file"):
        trust(replace(sources(), ca_bundle=b"no certificate"))


def test_token_files_that_do_not_hold(tmp_path: Path) -> None:
    for text in (None, "", "a\nb"):
        file = tmp_path / "token"
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        site = Config.model_validate({"providers": [{"kind": "github", "token_file": str(file)}]})
        with pytest.raises(ConfigError, match="token_file"):
            table(site, sources(), AddressRules((), "10.213.0.0/16"), ClientSession.__new__(ClientSession))
