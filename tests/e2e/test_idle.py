"""A session that nobody uses goes, and nothing of it stays; one that works stays."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

IDLE = 6
UNTOUCHED = ("registry", "podman", "samples", "proxy")


@contextmanager
def settings(stand: Stand, **changed: Any) -> Iterator[None]:
    """Bring it up with other settings, and back; nothing but hub and daemon is restarted for them."""
    before = {name: stand.settings[name] for name in changed if name in stand.settings}
    pids = [stand.keeper.states()[part].pid for part in UNTOUCHED]
    stand.configure(**changed)
    try:
        stand.up()
        assert [stand.keeper.states()[part].pid for part in UNTOUCHED] == pids
        yield
    finally:
        for name in changed:
            stand.settings.pop(name)
        stand.configure(**before)
        stand.up()


def user_of(event: dict[str, Any]) -> str:
    return str(event["url"].rstrip("/").rpartition("/")[2])


def asked(url: str, token: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})  # noqa: S310 - loopback
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return str(answer.read().decode())


def root_of(stand: Stand, user: str) -> str:
    """Where the session's files are mounted."""
    container = stand.podman("ps", "--quiet", "--filter", f"label=io.binder-onprem.launch={user[-16:]}").strip()
    return str(json.loads(stand.podman("inspect", container))[0]["GraphDriver"]["Data"]["MergedDir"])


def traces(stand: Stand, user: str, root: str) -> dict[str, bool]:
    """Where the session can be seen."""
    secret = {name: (stand.home / "secrets" / name).read_text(encoding="utf-8").strip() for name in ("hub-token", "proxy-token")}
    return {
        "container": bool(stand.podman("ps", "--all", "--quiet", "--filter", f"label=io.binder-onprem.launch={user[-16:]}")),
        "mount": root in Path("/proc/mounts").read_text(encoding="utf-8"),
        "user": user in asked(f"http://127.0.0.1:{stand.port + 2}/jupyter/hub/api/users", secret["hub-token"]),
        "route": user in asked(f"http://127.0.0.1:{stand.port + 1}/api/routes", secret["proxy-token"]),
    }


def counts(stand: Stand) -> tuple[int, int]:
    """Volumes, and mounts of this Binder's containers."""
    mounts = [line for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines() if str(stand.home) in line]
    return len(stand.podman("volume", "ls", "--quiet").split()), len(mounts)


async def test_the_unused_one_goes_and_the_working_one_stays(stand: Stand, origin: Origin) -> None:
    await ready(stand, origin.spec("bare"))
    with settings(stand, session={"idle": IDLE}, passes={"reap": 3600, "reconcile": 5}):
        working_one = await ready(stand, origin.spec("bare"))
        busy = user_of(working_one)
        root_of_busy = root_of(stand, busy)
        before = counts(stand)
        unused = user_of(await ready(stand, origin.spec("bare")))
        root = root_of(stand, unused)
        async with kernel(working_one) as inside:
            await inside.run("import time")
            working = asyncio.create_task(inside.run("time.sleep(600)", seconds=600))
            async with asyncio.timeout(30):
                while await inside.state() != "busy":  # noqa: ASYNC110 - another process tells nobody
                    await asyncio.sleep(0.2)
            working.cancel()  # the page is closed; the kernel works on
            await asyncio.gather(working, return_exceptions=True)
        assert all(traces(stand, unused, root).values())
        await asyncio.sleep(IDLE + 5)  # the hub asks the proxy for activity every four seconds
        would = {row["name"]: row["reason"] for row in stand.json("servers", "reap", "--dry-run")}
        assert would[unused] == "idle"
        assert busy not in would
        assert all(traces(stand, unused, root).values())
        with settings(stand, session={"idle": IDLE}, passes={"reap": 2, "reconcile": 5}):
            began = time.monotonic()
            while any((left := traces(stand, unused, root)).values()):
                assert time.monotonic() - began < 30, left
                await asyncio.sleep(0.5)
            assert counts(stand) <= before
            assert all(traces(stand, busy, root_of_busy).values())
        stand.command("servers", "stop", busy)
        assert not any(traces(stand, busy, root_of_busy).values())
