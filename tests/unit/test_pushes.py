"""Hooks by which others tell of pushes: signatures, payloads, and the route over HTTP."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from binder_onprem import pushes
from binder_onprem.config import PushHook
from binder_onprem.errors import InvalidSpec, Refused
from binder_onprem.model import BuildState
from binder_onprem.web.hooks import Post
from binder_onprem.webhooks import signature
from tests.unit.parts import Git, record
from tests.unit.webstand import ADMIN, Records, stand

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"a-shared-secret-of-ours"
COMMIT = "a" * 40
GITHUB = {
    "ref": "refs/heads/main",
    "after": COMMIT,
    "repository": {"full_name": "owner/repo", "clone_url": "https://git.test/owner/repo.git", "html_url": "https://git.test/owner/repo"},
}
GITLAB = {
    "ref": "refs/heads/main",
    "after": COMMIT,
    "checkout_sha": COMMIT,
    "project": {"path_with_namespace": "group/sub/project", "git_http_url": "https://gl.test/group/sub/project.git", "web_url": "https://gl.test/x"},
}


def hook(kind: str = "github", **more: Any) -> PushHook:
    return PushHook.model_validate({"kind": kind, "secret_file": "/x", "repositories": [".*"]} | more)


def mac(body: bytes) -> str:
    return hmac.new(KEY, body, hashlib.sha256).hexdigest()


def headers(kind: str, body: bytes, now: float = 1000.0) -> dict[str, str]:
    return {
        "github": {"X-Hub-Signature-256": f"sha256={mac(body)}", "X-GitHub-Event": "push"},
        "gitea": {"X-Gitea-Signature": mac(body), "X-Gitea-Event": "push"},
        "gitlab": {"X-Gitlab-Token": KEY.decode(), "X-Gitlab-Event": "Push Hook"},
        "signed": {"webhook-id": "1", "webhook-timestamp": str(int(now)), "webhook-signature": f"v1,xx {signature(KEY, '1', int(now), body)}"},
        "generic": {"X-Hub-Signature-256": mac(body)},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "with_"),
    [("github", "github"), ("gitea", "gitea"), ("gitlab", "gitlab"), ("gitlab", "signed"), ("generic", "generic"), ("generic", "signed")],
)
def test_who_signs_passes_and_nobody_else(kind: str, with_: str) -> None:
    body = b'{"a": 1}'
    good = headers(with_, body)
    pushes.check(hook(kind), KEY, good, body, 1000.0)
    for bad in ({}, dict.fromkeys(good, ""), dict.fromkeys(good, "é"), {name: value + "0" for name, value in good.items()}):
        with pytest.raises(Refused):
            pushes.check(hook(kind), KEY, bad, body, 1000.0)
    with pytest.raises(Refused):
        pushes.check(hook(kind), b"another-secret-than-ours", good, body, 1000.0)
    if with_ != "gitlab":
        with pytest.raises(Refused):
            pushes.check(hook(kind), KEY, good, body + b" ", 1000.0)


@pytest.mark.parametrize("now", [600.0, 1400.0])
def test_what_is_signed_with_a_time_is_refused_when_it_is_old(now: float) -> None:
    with pytest.raises(Refused, match="too old"):
        pushes.check(hook("gitlab"), KEY, headers("signed", b"x"), b"x", now)
    with pytest.raises(Refused):
        pushes.check(hook("github"), KEY, headers("signed", b"x"), b"x", 1000.0)


@pytest.mark.parametrize(
    ("kind", "payload", "link"),
    [
        ("github", GITHUB, f"gh/owner/repo/{COMMIT}"),
        ("gitea", GITHUB, f"git/https%3A%2F%2Fgit.test%2Fowner%2Frepo.git/{COMMIT}"),
        ("gitlab", GITLAB, f"gl/group%2Fsub%2Fproject/{COMMIT}"),
        ("generic", {"url": "https://git.test/r", "ref": "main", "commit": COMMIT.upper()}, f"git/https%3A%2F%2Fgit.test%2Fr/{COMMIT}"),
    ],
)
def test_what_was_pushed(kind: str, payload: Any, link: str) -> None:
    told = pushes.read(hook(kind), {}, json.dumps(payload).encode())
    assert told
    assert told.branch == "main"
    assert told.link(hook(kind)) == link
    assert told.link(hook(kind, link="gh/x/{branch}/{commit}")) == f"gh/x/main/{COMMIT}"
    with pytest.raises(InvalidSpec):
        told.link(hook(kind, link="{nothing}"))


def test_what_is_no_push_of_a_commit() -> None:
    assert pushes.read(hook(), {"X-GitHub-Event": "ping"}, b"{}") is None
    assert pushes.read(hook(), {}, json.dumps(GITHUB | {"after": "0" * 40}).encode()) is None
    assert pushes.read(hook(), {}, json.dumps(GITHUB | {"after": "--upload-pack=x"}).encode()) is None
    for body in (b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"repository": 1}'):
        with pytest.raises(InvalidSpec):
            pushes.read(hook(), {}, body)


class Tables:
    def __init__(self) -> None:
        self.builds: dict[str, str] = {}

    async def delivered(self, key: str) -> str | None:
        return self.builds.get(key)

    async def deliver(self, key: str, build: str, now: float) -> None:
        assert now
        self.builds[key] = build

    async def counts(self) -> dict[str, dict[str, int]]:
        return {"chat": {"waiting": 1, "dead": 2}}

    async def dead(self, limit: int = 100) -> list[Any]:
        assert limit
        return []

    async def revive(self, now: float) -> int:
        assert now
        return 2


class Started(Records):
    def __init__(self) -> None:
        super().__init__()
        self.started: list[tuple[str, str]] = []
        self.there: set[str] = set()

    async def start(self, image: Any, repo: Any, *, client: str) -> Any:
        self.started.append((f"{repo.spec.provider}/{repo.spec.path}", client))
        assert image.tag.startswith(repo.commit)
        self.record = record("0" * 16, of=repo)
        return self.record

    async def digest(self, image: Any) -> str | None:
        return "sha256:x" if image.tag.partition("-")[0] in self.there else None


async def post(client: aiohttp.ClientSession, url: str, payload: Any, kind: str = "github") -> tuple[int, dict[str, Any]]:
    body = json.dumps(payload).encode()
    async with client.post(url, data=body, headers=headers(kind, body, time.time())) as answer:
        return answer.status, await answer.json()


async def test_a_push_is_built_once_without_a_launch(tmp_path: Path) -> None:
    hooks = {"ours": {"kind": "github", "secret_file": "/x", "repositories": ["gh/owner/"], "branches": ["main", "release/.*"]}}
    records, tables = Started(), Tables()
    async with (
        stand(tmp_path, records=records, config={"hooks": hooks}, post=Post(tables, {"ours": KEY})) as at,
        aiohttp.ClientSession() as client,
    ):
        at.site.line.providers["gh"] = Git()
        url = f"{at.url}api/hooks/ours"
        assert await post(client, url, GITHUB) == (202, {"state": "queued", "build": "0" * 16})
        assert await post(client, url, GITHUB) == (202, {"state": "queued", "build": "0" * 16})
        assert records.started == [(f"gh/owner/repo/{COMMIT}", "hook:ours")]
        records.record = record("0" * 16, BuildState.FAILED)
        assert await post(client, url, GITHUB) == (200, {"state": "failed", "build": "0" * 16})
        records.there.add("b" * 40)
        assert await post(client, url, GITHUB | {"after": "b" * 40}) == (200, {"state": "built"})
        assert (await post(client, url, GITHUB | {"ref": "refs/heads/other"}))[1]["state"] == "ignored"
        assert (await post(client, url, GITHUB | {"after": "0" * 40}))[1]["state"] == "ignored"
        foreign = GITHUB | {"repository": GITHUB["repository"] | {"full_name": "foreign/repo"}}  # type: ignore[operator]
        assert (await post(client, url, foreign))[0] == 403
        assert (await post(client, f"{at.url}api/hooks/nope", GITHUB))[0] == 404
        async with client.post(url, data=b"{}", headers={"X-Hub-Signature-256": "sha256=0"}) as answer:
            assert answer.status == 403
        async with client.post(url, data=io.BytesIO(b"x" * (6 * 1024**2))) as answer:
            assert answer.status == 400
        assert len(records.started) == 1


async def test_what_waits_for_receivers_is_the_administrators_to_see(tmp_path: Path) -> None:
    async with stand(tmp_path, post=Post(Tables(), {})) as at, aiohttp.ClientSession() as client:
        admin = {"Authorization": f"Bearer {ADMIN}"}
        async with client.get(f"{at.url}api/outbox") as answer:
            assert answer.status == 403
        async with client.get(f"{at.url}api/outbox", headers=admin) as answer:
            assert await answer.json() == {"receivers": {"chat": {"waiting": 1, "dead": 2}}, "dead": []}
        async with client.post(f"{at.url}api/outbox/retry", headers=admin) as answer:
            assert await answer.json() == {"revived": 2}
