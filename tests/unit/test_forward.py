"""The forwarder in a process of its own: environment, exit codes, signals, zombies, bytes; with the oldest Python it promises, where there is one."""

import ast
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from binder_onprem.egress import forward
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.egress.gate import Gate
from tests.unit.loopback import answer, listening

SCRIPT = Path(forward.__file__)


@asynccontextmanager
async def gate(folder: Path) -> AsyncIterator[Path]:
    path = folder / "gate.sock"
    async with Gate(AddressRules(("127.0.0.0/8",), "10.213.0.0/16"), frozenset()).serving(path, None):
        yield path


async def run(*words: str | Path, env: dict[str, str] | None = None, feed: bytes | None = None) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(SCRIPT),
        *map(str, words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    out, err = await asyncio.wait_for(process.communicate(feed), 20)
    assert process.returncode is not None
    return process.returncode, out, err


async def test_what_is_reached_directly_can_be_told(tmp_path: Path) -> None:
    _, out, _ = await run(tmp_path / "none", "--", "env", env={"PATH": os.environ["PATH"], "BINDER_DIRECT": "localhost,::1"})
    lines = out.decode().splitlines()
    assert {"no_proxy=localhost,::1", "NO_PROXY=localhost,::1"} <= set(lines)
    assert not [line for line in lines if line.startswith("BINDER_DIRECT")]


async def test_the_environment_of_the_command(tmp_path: Path) -> None:
    code, out, _ = await run(
        tmp_path / "none",
        "--",
        "env",
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c"},
    )
    env = dict(line.split("=", 1) for line in out.decode().splitlines())
    assert code == 0
    proxy = env["http_proxy"]
    assert proxy.startswith("http://127.0.0.1:")
    assert {env[name] for name in ("https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "ftp_proxy")} == {proxy}
    assert env["no_proxy"] == env["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert (env["GIT_CONFIG_COUNT"], env["GIT_CONFIG_KEY_0"], env["GIT_CONFIG_KEY_1"], env["GIT_CONFIG_VALUE_1"]) == (
        "2",
        "a.b",
        "core.gitproxy",
        str(SCRIPT),
    )
    assert "ProxyCommand" in env["GIT_SSH_COMMAND"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 37"), 37),
        (("sh", "-c", "kill -9 $$"), 137),
        (("/nonexistent/command",), 127),
        (("/etc",), 126),
    ],
)
async def test_exit_codes(tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    assert (await run(tmp_path / "none", "--", *command))[0] == code


@pytest.mark.parametrize("words", [(), ("x",), ("x", "--"), ("a", "b"), ("a", "b", "c")])
async def test_wrong_use(words: tuple[str, ...]) -> None:
    code, _, err = await run(*words)
    assert (code, b"usage" in err) == (2, True)


async def test_a_command_reaches_the_gate_by_http(tmp_path: Path) -> None:
    body = os.urandom(2_000_000)
    async with listening(answer("200 OK", body)) as heard, gate(tmp_path) as path:
        code, out, err = await run(path, "--", "curl", "-sS", "--noproxy", "", heard.url)
    assert code == 0, err
    assert out == body


async def test_the_tunnel_for_git_and_ssh(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readexactly(4))

    async with listening(echo) as heard, gate(tmp_path) as path:
        code, out, _ = await run(path, "--", SCRIPT, "127.0.0.1", str(heard.port), feed=b"x\r\n\r\nabcd")
        assert (code, out) == (0, b"hello abcd")
        code, _, err = await run(path, "--", SCRIPT, "10.0.0.1", "9418")
        assert (code, b"403" in err) == (1, True)


async def test_signals_reach_the_command_and_its_children(tmp_path: Path) -> None:
    # The pause: a child that is not yet `sleep` but still the shell's fork forgets the signal.
    script = "trap 'echo term; exit 5' TERM; sleep 60 & sleep 0.3; echo ready; wait"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), str(tmp_path), "--", "sh", "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.stdout.read(), 5) == b"term\n", "the sleeping child holds the output open until it is gone, too"
    assert await process.wait() == 5


async def test_a_gate_that_is_gone_closes_connections_and_the_command_goes_on(tmp_path: Path) -> None:
    code, _, err = await run(tmp_path / "none", "--", "sh", "-c", "curl -sS --noproxy '' http://127.0.0.1:9/; exit 3")
    assert (code, b"curl" in err) == (3, True)


async def test_it_starts_in_no_time(tmp_path: Path) -> None:
    await run(tmp_path, "--", "true")
    times = []
    for _ in range(5):
        started = time.perf_counter()
        await run(tmp_path, "--", "true")
        times.append(time.perf_counter() - started)
    assert min(times) < 0.2, "about 0.03 s on an idle machine; this only catches a heavy import"


def test_it_needs_nothing_but_an_old_standard_library() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported <= {"os", "select", "selectors", "signal", "socket", "sys", "threading"}
    assert os.access(SCRIPT, os.X_OK)


def test_a_file_that_may_not_be_executed_gets_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = Path(forward.tunnel_command())
    assert script.parent == tmp_path
    assert str(SCRIPT) in script.read_text(encoding="utf-8")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    assert forward.tunnel_command() == str(SCRIPT)
