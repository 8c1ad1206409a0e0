"""The site's own program before a start: real processes."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.config import Config
from binder_onprem.errors import ConfigError, Refused, Unavailable
from binder_onprem.hook import Hook
from binder_onprem.model import Client, LaunchRequest
from binder_onprem.terms import Terms
from tests.unit.parts import DIGEST, image, repo

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = LaunchRequest("gh", "owner/repo/HEAD", Client("192.0.2.1", "ann", groups=frozenset({"staff"})))
SITE = Terms()


def hook(home: Path, script: str, **rules: Any) -> Hook:
    program = home / "hook"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    found = Hook.of(Config.model_validate({"home": home, "hook": {"command": [str(program)], "timeout": 20} | rules}))
    assert found
    return found


async def ask(of: Hook, terms: Terms = SITE) -> Terms:
    return await of.ask(REQUEST, repo(), image().at(DIGEST), terms)


async def test_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "secret")
    assert await ask(hook(tmp_path, f"cat > {tmp_path}/in; env > {tmp_path}/env\n")) == SITE
    told = json.loads((tmp_path / "in").read_text())
    assert (told["provider"], told["spec"], told["user"], told["groups"], told["address"]) == ("gh", "owner/repo/HEAD", "ann", ["staff"], "192.0.2.1")
    assert told["image"] == image().at(DIGEST)
    assert REQUEST.key not in json.dumps(told)
    assert "PLANTED" not in (tmp_path / "env").read_text()


async def test_it_may_refuse_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^Only until four o'clock\.$"):
        await ask(hook(tmp_path, """cat <<'X'\n{"refuse": "Only until four o'clock.\\n"}\nX\n"""))


async def test_it_narrows_and_never_widens(tmp_path: Path) -> None:
    answer = {"memory": 1024**4, "cpus": 0.5, "idle": 60, "age": 10**9, "environment": {"COURSE": "a", "OWN": "b"}}
    terms = await ask(hook(tmp_path, f"echo '{json.dumps(answer)}'"), Terms(age=100, environment={"OWN": "x", "MORE": "y"}))
    assert terms == Terms(2 * 1024**3, 0.5, 60, 100, {"OWN": "b", "MORE": "y", "COURSE": "a"})


@pytest.mark.parametrize(
    "script",
    [
        "exit 3",
        "echo nonsense",
        "echo '[]'",
        'echo \'{"image": "x"}\'',
        "echo '{\"memory\": -1}'",
        "echo '{\"cpus\": true}'",
        'echo \'{"environment": {"LD_PRELOAD": "x"}}\'',
        'echo \'{"environment": {"JUPYTER_TOKEN": "x"}}\'',
        'echo \'{"environment": {"A B": "x"}}\'',
        'echo \'{"environment": {"A": 1}}\'',
        "echo '{\"environment\": []}'; exit 1",
        "head -c 100000 /dev/zero",
    ],
)
async def test_what_does_not_hold_is_a_failure(tmp_path: Path, script: str) -> None:
    with pytest.raises(Unavailable, match="own check of launches"):
        await ask(hook(tmp_path, script))
    assert await ask(hook(tmp_path, script, on_failure="ignore")) == SITE


async def test_its_time_is_limited_and_nothing_of_it_stays(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await ask(hook(tmp_path, f"(sleep 3; touch {tmp_path}/left) & sleep 30", timeout=0.5))
    assert time.monotonic() - began < 25
    await asyncio.sleep(3.5)
    assert not (tmp_path / "left").exists()


async def test_a_function_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "ours.py").write_text("def ask(launch):\n    print('noise')\n    return {'environment': {'WHO': launch['user']}}\n")
    found = Hook.of(Config.model_validate({"home": tmp_path, "hook": {"entry_point": "ours:ask", "timeout": 60}}))
    assert found
    assert (await ask(found)).environment == {"WHO": "ann"}


def test_settings_that_do_not_hold(tmp_path: Path) -> None:
    assert Hook.of(Config(home=tmp_path)) is None
    for rules in ({"command": ["relative"]}, {"command": ["/bin/true"], "entry_point": "a:b"}, {"entry_point": "no colon"}):
        with pytest.raises(ValueError, match="hook"):
            Config.model_validate({"home": tmp_path, "hook": rules})
    with pytest.raises(ConfigError, match="no program"):
        Hook.of(Config.model_validate({"home": tmp_path, "hook": {"command": [str(tmp_path / "absent")]}}))
