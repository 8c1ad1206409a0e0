"""What the documents say is what the code does: settings, commands, metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from binder_onprem import cli
from binder_onprem.config import Config, auth, registry, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = README + (ROOT / "SETTINGS.md").read_text(encoding="utf-8")
"""Settings stand in the one or in the other."""


UNIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "registry": (registry.LocalRegistry, registry.RemoteRegistry),
    "sessions": (sessions.PodmanSessions, sessions.KubernetesSessions),
}


def settings() -> Iterator[tuple[str, str | None]]:
    for name, field in Config.model_fields.items():
        if name == "auth":
            yield from accounts()
        elif name in UNIONS:
            found = {key: inner.description for kind in UNIONS[name] for key, inner in kind.model_fields.items() if inner.description}
            yield from ((f"{name}.{key}", description) for key, description in found.items())
        elif isinstance(field.default, BaseModel) and name != "base":
            yield from ((f"{name}.{key}", inner.description) for key, inner in type(field.default).model_fields.items())
        else:
            yield name, field.description


def accounts() -> Iterator[tuple[str, str | None]]:
    """Every kind's settings once; those that all kinds share come first."""
    yield from ((f"auth.{key}", field.description) for key, field in auth.NoAccounts.model_fields.items())
    for kind in (auth.Accounts, auth.OidcAccounts, auth.LdapAccounts, auth.PamAccounts, auth.NativeAccounts):
        shared = auth.Accounts.model_fields.keys() if kind is not auth.Accounts else ()
        yield from ((f"auth.{key}", field.description) for key, field in kind.model_fields.items() if key not in {*shared, "kind"})
    yield from ((f"auth.roles.{key}", field.description) for key, field in auth.Roles.model_fields.items())


@pytest.mark.parametrize(("name", "description"), list(settings()))
def test_every_setting_stands_in_the_documents_in_its_own_words(name: str, description: str | None) -> None:
    assert description
    assert re.search(rf"^\| `{re.escape(name)}` \| .* \| {re.escape(description)} \|$", REFERENCE, re.MULTILINE)


def test_the_documents_name_no_setting_that_does_not_exist() -> None:
    table = REFERENCE.split("## Settings")[1]
    named = re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted(name for name, _ in settings())


@pytest.mark.parametrize("command", sorted(cli.main.commands))
def test_every_command_stands_in_the_readme(command: str) -> None:
    assert f"`{command}" in README.split("## Commands")[1].split("## Settings")[0]


def test_the_documents_stay_short() -> None:
    assert len(README.splitlines()) <= 150
    assert README.index("make up") < 1000


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_links_of_the_readme_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
