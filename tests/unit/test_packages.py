"""Accounts that packages have made in a run which was cut off are ours; those that administrators have made meanwhile are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.plugins import plugin

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

packages = plugin("library/binder_packages.py")


def test_accounts_of_a_run_that_was_cut_off_are_those_that_its_packages_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "RECORD", tmp_path / "deploy" / "packages.json")
    monkeypatch.setattr(packages, "SCRIPTS", tmp_path)
    (tmp_path / "docker-registry.postinst").write_text("adduser --system docker-registry\n")
    (tmp_path / "uidmap:amd64.postinst").write_text("adduser --system mapper\n")
    (tmp_path / "postgresql.postinst").write_text("adduser --system postgres\n")
    monkeypatch.setattr(packages, "users", lambda: {"root", "docker-registry", "mapper", "alice", "postgres", "late"})
    begun = packages.users() - {"late"}
    packages.record(packages={"docker-registry", "uidmap"})
    assert packages.made(begun) == {"late"}
    packages.record(accounts={"root"})
    assert packages.made(begun) == {"late", "docker-registry", "mapper"}
    packages.forget("accounts")
    assert packages.made(begun) == {"late"}
