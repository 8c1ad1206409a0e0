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
    (tmp_path / "docker-registry.postinst").write_text("adduser --system docker-registry; addgroup --system keys; adduser docker-registry adm\n")
    (tmp_path / "uidmap:amd64.postinst").write_text("adduser --system mapper\n")
    (tmp_path / "postgresql.postinst").write_text("adduser --system postgres\n")
    monkeypatch.setattr(packages, "accounts", lambda: {"root", "docker-registry", "mapper", "alice", "postgres", "late", "group:adm", "group:keys"})
    begun = packages.accounts() - {"late"}
    packages.record(packages={"docker-registry", "uidmap"})
    assert packages.made(begun) == {"late"}
    packages.record(accounts={"root", "group:adm"})
    assert packages.made(begun) == {"late", "docker-registry", "mapper", "group:keys"}
    packages.forget("accounts")
    assert packages.made(begun) == {"late"}


def test_directories_that_are_not_empty_and_groups_that_have_members_stay(tmp_path: Path) -> None:
    for name in ("postgresql/15", "postgresql/16/main"):
        (tmp_path / name).mkdir(parents=True)
    packages.cleared([f"{tmp_path}/postgresql", f"{tmp_path}/postgresql/*"])
    assert sorted(path.name for path in (tmp_path / "postgresql").iterdir()) == ["16"]
    packages.cleared([f"{tmp_path}/none/*"])
    assert not packages.deserted("root")
    assert not packages.deserted("no-such-group")
