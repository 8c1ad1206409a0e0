"""Credentials that the site itself has for hosts of private repositories; people add their own at run time."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated

from pydantic import AfterValidator, Field

from binder_onprem.config.frozen import Frozen
from binder_onprem.credential import USERNAME, checked_username, in_the_clear, origin_of
from binder_onprem.errors import BinderError


def _origin(value: str) -> str:
    try:
        origin = origin_of(value)
    except BinderError as error:
        raise ValueError(error.message) from None
    if in_the_clear(origin):
        raise ValueError("a secret is sent over https only, or by http to an address that is not public")
    return origin


def _username(value: str) -> str:
    try:
        return checked_username(value)
    except BinderError as error:
        raise ValueError(error.message) from None


class SiteCredential(Frozen):
    """One of the site's; without users and groups everybody who may launch may use it."""

    host: Annotated[str, AfterValidator(_origin)] = Field(description="host, host:port, or http://address:port of a network of your own")
    username: Annotated[str, AfterValidator(_username)] = Field(default=USERNAME, description="goes with the secret; tokens mostly need none")
    secret_file: Path = Field(description="file with the token, read at each use")
    users: tuple[str, ...] = Field(default=(), description="who may use it")
    groups: tuple[str, ...] = Field(default=(), description="whose members may use it")
