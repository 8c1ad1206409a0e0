"""The module that makes the Binder's PostgreSQL: passwords as the server keeps them, names, and what is another's."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from binder_onprem.store.database import engine_of
from tests.unit.plugins import answer, plugin

if TYPE_CHECKING:
    from pathlib import Path

module = plugin("library/binder_postgresql.py")


def test_a_verifier_is_that_of_the_standard() -> None:
    # The salt of RFC 7677, whose password is this one.
    made = module.verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    assert made == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


async def test_what_the_server_keeps_of_a_password_is_known_again(postgres: str) -> None:
    engine = engine_of(postgres)
    async with engine.connect() as connection:
        await connection.execute(sa.text("SET password_encryption = 'scram-sha-256'"))
        await connection.execute(sa.text("CREATE ROLE pencil PASSWORD 'of lead'"))
        kept = (await connection.execute(sa.text("SELECT rolpassword FROM pg_authid WHERE rolname = 'pencil'"))).scalar_one()
        await connection.rollback()
    await engine.dispose()
    assert module.matches("of lead", kept)
    assert not module.matches("of tin", kept)
    assert not module.matches("of lead", "md5" + "0" * 32)
    assert not module.matches("of lead", "")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directories that the module looks into."""
    for name, below in {"RECORD": "postgresql.json", "CLUSTERS": "clusters", "PROGRAMS": "programs"}.items():
        monkeypatch.setattr(module, name, tmp_path / below)
    return tmp_path


def look(capsys: pytest.CaptureFixture[str], **more: Any) -> dict[str, Any]:
    return answer(module, capsys, state="cluster", _ansible_check_mode=True, **more)


def there(host: Path, *files: str) -> None:
    for file in files:
        (host / file).parent.mkdir(parents=True, exist_ok=True)
        (host / file).write_text("")


def test_the_newest_cluster_of_ours_counts(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look(capsys)["version"] == ""
    module.record(["binder"])
    there(
        host,
        *(f"clusters/{version}/binder/postgresql.conf" for version in ("9.6", "15", "17")),
        "programs/15/bin/postgres",
        "programs/17/bin/postgres",
    )
    assert look(capsys) == {"changed": False, "version": "17", "invocation": look(capsys)["invocation"]}
    (host / "programs/17/bin/postgres").unlink()
    assert "Install postgresql-17" in look(capsys)["msg"]


@pytest.mark.parametrize(("given", "why"), [({}, "not ours"), ({"cluster": "a-b"}, "is no name"), ({"name": "x; DROP"}, "is no name")])
def test_what_is_anothers_or_no_name_is_refused(given: dict[str, str], why: str, host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there(host, "clusters/15/binder/postgresql.conf", "programs/15/bin/postgres")
    told = look(capsys, **given)
    assert told["failed"]
    assert why in told["msg"]
