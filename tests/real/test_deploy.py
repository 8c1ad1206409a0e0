"""`deploy` runs real playbooks by the real ansible-runner: here on this machine, by those that change nothing or a directory of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
ONE = "all: {children: {builder: {hosts: {here: {ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'}}}}}\n"
PLAY = """\
- name: A play of a test
  hosts: all
  gather_facts: false
  tasks:
    - name: A file
      ansible.builtin.copy: {dest: "{{ place }}/file", content: "text", mode: "0600"}
    - name: Is it there
      ansible.builtin.assert: {that: wanted | default('yes') == 'yes', fail_msg: "It is not wanted. Say so."}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yml").write_text(ONE)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "site.yml").write_text(PLAY)
    return tmp_path


def deploy(site: Path, *words: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-c", "from binder_onprem.cli import main; main()", "deploy", *words, "--json", "-i", str(site / "hosts.yml")]
    env = {**os.environ, "XDG_STATE_HOME": str(site / "state"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=env, cwd=ROOT)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def ours(site: Path) -> list[str]:
    return ["site", "--playbooks", str(site / "playbooks"), "-e", f"place={site}"]


def test_a_second_run_and_a_look_change_nothing(site: Path) -> None:
    code, look = deploy(site, *ours(site), "--check")
    assert (code, look["changed"], look["check"], (site / "file").exists()) == (0, 1, True, False)
    code, first = deploy(site, *ours(site))
    assert (code, first["changed"], (site / "file").read_text()) == (0, 1, "text")
    code, second = deploy(site, *ours(site))
    assert (code, second["changed"], second["hosts"]["here"]["ok"]) == (0, 0, 2)


def test_a_failure_is_told_with_its_log_which_only_its_owner_reads(site: Path) -> None:
    code, told = deploy(site, *ours(site), "-e", "wanted=no")
    assert code == 11
    assert [(one["host"], one["task"], one["message"]) for one in told["failures"]] == [("here", "Is it there", "It is not wanted. Say so.")]
    log = Path(told["log"])
    assert "It is not wanted" in log.read_text()
    assert (log.parents[2].stat().st_mode & 0o777, log.parents[3].stat().st_mode & 0o777) == (0o700, 0o700)


def test_a_host_that_is_not_there_is_unavailable(site: Path) -> None:
    (site / "hosts.yml").write_text("all: {hosts: {gone: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    code, told = deploy(site, *ours(site))
    assert (code, told["failures"][0]["kind"]) == (6, "unreachable")


def test_an_inventory_that_cannot_be_read_is_a_sentence(site: Path) -> None:
    (site / "hosts.yml").write_text("all: [\n")
    code, told = deploy(site, *ours(site))
    assert (code, told["error"]) == (10, "config")


def test_preflight_looks_at_this_very_machine(site: Path) -> None:
    code, told = deploy(site, "preflight")
    found = {row["subject"]: row for row in told["findings"]["here"]}
    assert {"system", "memory", "disk", "control groups", "ports", "clock", "podman", "hostname", "machine id"} <= set(found)
    failed = [row for row in told["findings"]["here"] if row["level"] == "fail"]
    assert (code == 0) == (not failed)
    assert told["changed"] == 0
    assert all(row["fix"] for row in failed)


def test_status_that_finds_something_wrong_is_no_success(site: Path) -> None:
    inventory = site / "hosts.yml"
    inventory.write_text(ONE.replace("builder", "control"))
    code, told = deploy(site, "status", "-e", f"status_home={site}/none")
    assert [(row["level"], row["text"]) for row in told["status"]["here"] if row["subject"] == "binder"] == [("fail", "is not installed")]
    assert (code, told["ok"], told["failures"]) == (11, False, [])


def test_a_vaults_password_file_may_have_a_space_in_its_name(site: Path) -> None:
    (site / "the password").write_text("canary\n")
    code, told = deploy(site, *ours(site), "--vault-password-file", str(site / "the password"))
    assert (code, told["changed"]) == (0, 1)
