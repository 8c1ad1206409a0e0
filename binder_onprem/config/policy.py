"""Who may launch what, how often, how much of it at once, and what the site's own program says to it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from pydantic import ByteSize, Field, PositiveFloat, PositiveInt, model_validator

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

BUILDS: dict[str, str] = {"build_timeout": "timeout", "build_memory": "memory", "build_cpus": "cpus", "build_disk": "disk"}
"""Settings of a spec that stand in for one of the section `build`."""


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def matches(patterns: Iterable[str], link: str) -> bool:
    """Whether any pattern matches the beginning of a ``provider/path``. Percent-encoding is no way around a ban."""
    forms = (link, unquote(link))
    return any(_pattern(pattern).match(form) for pattern in patterns for form in forms)


class SpecSettings(Frozen):
    """What holds for repositories whose ``provider/path`` matches; of several entries that match, the later ones win, setting by setting."""

    pattern: kinds.Pattern
    quota: int | None = Field(default=None, ge=0)
    memory: ByteSize | None = Field(default=None, ge=1024**2)
    cpus: PositiveFloat | None = None
    idle: PositiveFloat | None = None
    age: PositiveFloat | None = None
    build_timeout: PositiveFloat | None = None
    build_memory: kinds.Memory | None = None
    build_cpus: PositiveFloat | None = None
    build_disk: ByteSize | None = Field(default=None, ge=1024**2)


class Admission(Frozen):
    """Who may ask for what, how often. Patterns are regular expressions matched against ``provider/path``."""

    rate: int = Field(default=0, ge=0, description="launches per period of one address; 0: no limit")
    rate_per_user: int = Field(default=0, ge=0, description="launches per period of one account; 0: no limit")
    period: PositiveFloat = Field(default=3600, description="seconds")
    allowed: tuple[kinds.Pattern, ...] = Field(default=(), description="patterns of provider/path; if any is given, nothing else is launched")
    banned: tuple[kinds.Pattern, ...] = Field(default=(), description="patterns of provider/path that are not launched")
    high_quota: tuple[kinds.Pattern, ...] = Field(default=(), description="patterns of provider/path that have quota.per_high_quota_repo")
    specs: tuple[SpecSettings, ...] = Field(
        default=(),
        description="list of pattern with quota, memory, cpus, idle, age of sessions and build_timeout, build_memory, build_cpus, build_disk "
        "for what it matches; later entries win",
    )
    ban_networks: dict[kinds.NetworkText, str] = Field(default_factory=dict, description="map of CIDR: label; clients that are refused")

    def matching(self, link: str) -> tuple[SpecSettings, ...]:
        """The settings for a ``provider/path``, in their order."""
        return tuple(entry for entry in self.specs if matches([entry.pattern], link))

    def of_builds(self, link: str) -> dict[str, Any]:
        """What holds for its builds in place of the section `build`, by that section's names."""
        found: dict[str, Any] = {}
        for entry in self.matching(link):
            found |= {name: value for ours, name in BUILDS.items() if (value := getattr(entry, ours)) is not None}
        return found


class Quota(Frozen):
    """How much at once, beside ``session.total`` and ``session.per_repo``, and what happens when that is reached."""

    per_high_quota_repo: int = Field(default=0, ge=0, description="sessions of one repository of admission.high_quota at once; 0: no limit")
    per_user: int = Field(default=0, ge=0, description="sessions of one account at once; 0: no limit")
    per_address: int = Field(default=0, ge=0, description="sessions of one address without an account at once; 0: no limit")
    per_group: dict[str, PositiveInt] = Field(default_factory=dict, description="map of group: sessions of all its members at once")
    builds_per_user: int = Field(default=0, ge=0, description="builds of one account or address that run at once; more wait; 0: no limit")
    when_full: Literal["refuse", "wait"] = Field(
        default="refuse", description="what a launch does when a quota of sessions is reached: refuse or wait"
    )
    waiting: PositiveInt = Field(default=100, description="launches that wait at the most; more are refused")
    patience: PositiveFloat = Field(default=900, description="seconds a launch waits at the most")
    grace: PositiveFloat = Field(default=30, description="seconds a place is kept for a viewer whose connection broke")


class Hook(Frozen):
    """A program of the site's that is asked before each start of a session."""

    command: tuple[str, ...] = Field(default=(), description="absolute path of a program and its arguments; it is asked before each session")
    entry_point: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="module:function in place of a program")
    timeout: float = Field(default=5, gt=0, le=60, description="seconds it may take")
    on_failure: Literal["refuse", "ignore"] = Field(default="refuse", description="what its failure does to a launch: refuse or ignore")

    @model_validator(mode="after")
    def _one(self) -> Hook:
        if self.command and self.entry_point:
            message = "command and entry_point exclude each other"
            raise ValueError(message)
        if self.command and not self.command[0].startswith("/"):
            message = "command must begin with an absolute path"
            raise ValueError(message)
        return self
