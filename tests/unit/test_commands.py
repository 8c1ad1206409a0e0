"""Commands of the set-up: what is said when they fail, and that they end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import HostUnfit
from binder_onprem.host.commands import Commands

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path / "log", None, ())


def test_output_is_returned_and_kept(commands: Commands) -> None:
    assert commands.run("sh", "-c", "echo one; echo two >&2", timeout=10) == "one\ntwo\n"
    assert commands.run("echo", "three", timeout=10) == "three\n"
    assert commands.log.read_text() == "one\ntwo\nthree\n"


def test_a_failure_names_the_log_and_shows_the_last_lines(commands: Commands) -> None:
    with pytest.raises(HostUnfit) as caught:
        commands.run("sh", "-c", "seq 100; exit 3", timeout=10)
    assert str(commands.log) in caught.value.message
    assert caught.value.message.endswith("\n99\n100")
    assert "\n80\n" not in caught.value.message


def test_what_takes_too_long_ends_with_its_children(commands: Commands, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(HostUnfit, match="took too long"):
        commands.run("sh", "-c", f"(sleep 2; touch {tmp_path}/late) & wait", timeout=0.2)
    assert time.monotonic() - began < 2
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()


def test_a_missing_program_is_named(commands: Commands) -> None:
    with pytest.raises(HostUnfit, match="no-such-program"):
        commands.run("no-such-program", timeout=1)
    with pytest.raises(HostUnfit, match="no-such-program"):
        commands.output("no-such-program")


def test_questions_have_an_answer_or_none(commands: Commands) -> None:
    assert commands.output("echo", "yes") == "yes"
    assert commands.output("sh", "-c", "echo no; exit 1") == ""


def test_the_proxy_reaches_the_commands(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "log", "http://proxy.example:3128", ("localhost", ".inside"))
    assert commands.run("sh", "-c", 'echo "$http_proxy $HTTPS_PROXY $no_proxy"', timeout=10) == (
        "http://proxy.example:3128 http://proxy.example:3128 localhost,.inside\n"
    )
