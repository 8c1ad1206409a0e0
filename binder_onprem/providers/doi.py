"""DOIs: reading one in a link, and asking the configured resolver where it leads. Nothing is fetched from where it leads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field

from binder_onprem.egress.hostnames import canonical
from binder_onprem.errors import InvalidSpec, RefNotFound
from binder_onprem.providers.links import shown

if TYPE_CHECKING:
    from binder_onprem.providers.remembered import Remembered

_DOI: Final = re.compile(r"10\.[0-9]{4,9}(\.[0-9]+)*/[!-~]{1,200}")
_BEFORE: Final = re.compile(r"(doi:|https?://(dx\.|www\.)?doi\.org/)", re.IGNORECASE)
UNSAFE: Final = re.compile(r"[?#\\%\"'`<>{}|^&$]|//|(^|/)\.{1,2}(/|$)|/-")


def named(text: str, example: str) -> str:
    """The DOI that a link names, without ``doi:`` or the resolver's address.

    Args:
        text: The link after its prefix, decoded.
        example: A DOI of this provider, for the message.

    Raises:
        InvalidSpec: It is none.
    """
    text = _BEFORE.sub("", text, count=1) if _BEFORE.match(text) else text
    if not _DOI.fullmatch(text) or UNSAFE.search(text):
        raise InvalidSpec(f'"{shown(text)}" is not a DOI. It must look like {example}.')
    return text


class _Data(BaseModel):
    value: Any = None


class _Value(BaseModel):
    type: str = ""
    data: _Data = _Data()


class _Handle(BaseModel):
    values: list[_Value] = Field(default_factory=list, max_length=200)


class Resolver:
    """A site's way from DOIs to addresses.

    Args:
        api: Asks.
        base: The resolver, ``https://doi.org``; None: nobody is asked.
    """

    def __init__(self, api: Remembered, base: str | None) -> None:
        self._api = api
        self._base = base
        self.asks = base is not None

    def page(self, doi: str) -> str:
        """The DOI as people click it."""
        return f"{self._base or 'https://doi.org'}/{doi}"

    async def where(self, doi: str) -> str:
        """The address that a DOI leads to.

        Raises:
            RefNotFound: There is no such DOI, or this site asks no resolver.
            ProviderUnavailable: The resolver does not answer.
        """
        if self._base is None:
            raise RefNotFound(f"This site does not look up DOIs, and {doi} does not name the record itself. Use one that does.")
        missing = f"The DOI {doi} is not known. Check its spelling."
        handle = await self._api.read(_Handle, f"{self._base}/api/handles/{quote(doi, safe='/')}", missing)
        for value in handle.values:
            if value.type == "URL" and isinstance(value.data.value, str):
                return value.data.value[:2000]
        raise RefNotFound(missing)


def below(url: str, base: str) -> str | None:
    """The path of a URL below a base's, None when it is of another host. Subdomains are other hosts."""
    there, here = urlsplit(url), urlsplit(base)
    try:
        same = canonical(there.hostname or "") == canonical(here.hostname or "") and _port(there) == _port(here)
    except ValueError:
        return None
    prefix = here.path.rstrip("/") + "/"
    return there.path.removeprefix(prefix) if same and there.path.startswith(prefix) else None


def _port(parts: Any) -> int:
    """Ports 80 and 443 are one: DOIs keep the http:// of the day they were made."""
    return 443 if parts.port in (None, 80) else parts.port


def elsewhere(doi: str, url: str, name: str) -> RefNotFound:
    """The error for a DOI that leads to another host; `url` is a stranger's."""
    try:
        host = urlsplit(url).hostname or "?"
    except ValueError:
        host = "?"
    return RefNotFound(f"The DOI {doi} leads to {shown(host)}, which is not this site's {name}. Choose the kind of repository that it belongs to.")
