"""Zenodo and every other InvenioRDM: ``zenodo/<DOI>``, by its REST API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from binder_onprem.content import FILES
from binder_onprem.errors import RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display, doi
from binder_onprem.providers.links import checked, decoded
from binder_onprem.providers.records import content, file, version
from binder_onprem.providers.remembered import Remembered

if TYPE_CHECKING:
    from binder_onprem.config.archives import ZenodoProvider
    from binder_onprem.content import File
    from binder_onprem.providers.reader import Reader

ID: Final = re.compile(r"[0-9]{1,18}|[a-z0-9]{5}-[a-z0-9]{5}")
"""Of a record: Zenodo's numbers, InvenioRDM's two words."""
MISSING: Final = "The record does not exist, or is not public. Check the DOI."
CLOSED: Final = frozenset({"closed", "embargoed", "restricted"})
NO_FILES: Final = "The record has no files that everybody may fetch."


class _Links(BaseModel):
    content: str = ""
    self: str = ""
    download: str = ""


class _File(BaseModel):
    key: str
    size: int | None = None
    checksum: str | None = None
    links: _Links


class _Entries(BaseModel):
    entries: list[_File] = Field(default_factory=list, max_length=FILES + 1)


class _Access(BaseModel):
    record: str = "public"
    files: str = "public"


class _Metadata(BaseModel):
    access_right: str = "open"


class _Record(BaseModel):
    """InvenioRDM tells who may see it in ``access``, Zenodo's own form in its metadata."""

    id: int | str
    access: _Access = Field(default_factory=_Access)
    metadata: _Metadata = Field(default_factory=_Metadata)
    files: list[_File] | dict[str, Any] | None = None


class Zenodo:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
        token: For the API, or "".
    """

    name = "Zenodo"

    def __init__(self, config: ZenodoProvider, reader: Reader, token: str = "") -> None:
        self.prefix = config.prefix
        self.display_config = display.zenodo(config)
        self._url = config.url
        self._records = f"{config.api or config.url + '/api'}/records"
        self._prefixes = config.doi_prefixes
        self._api = Remembered(reader, "Zenodo", {"Authorization": f"Bearer {token}"} if token else None)
        self._resolver = doi.Resolver(Remembered(reader, "doi.org"), config.doi)

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec. The id of a record alone will do where DOIs are made of it."""
        raw = checked(path)
        text = decoded(raw).removeprefix("record/").removeprefix("records/")
        if ID.fullmatch(text) and self._prefixes:
            text = self._prefixes[0] + text
        found = doi.named(text, "10.5281/zenodo.3242074")
        known = self._known(found)
        return RepoSpec(self.prefix, raw, self._resolver.page(found), "", slug(f"zenodo-{known or found}"))

    def _known(self, found: str) -> str | None:
        """The record that a DOI of this host names itself."""
        for prefix in self._prefixes:
            rest = found.lower().removeprefix(prefix.lower())
            if rest != found.lower() and ID.fullmatch(rest):
                return rest
        return None

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`. The id of all versions leads to the latest."""
        found = spec.url.removeprefix(self._resolver.page(""))
        asked = self._known(found) or await self._led(found)
        record = await self._api.read(_Record, f"{self._records}/{asked}", MISSING)
        if {record.access.record, record.access.files} != {"public"} or record.metadata.access_right in CLOSED:
            raise RefNotFound(MISSING)  # the site's token may see it; what is fetched is fetched without
        identity = version(str(record.id))
        listed = await self._files(record, identity)
        plan = content((_planned(one) for one in listed), unpack=True, empty=NO_FILES)
        return ResolvedRepo(spec, identity, self._path(found, asked, identity), f"{self._url}/records/{identity}", content=plan)

    async def _led(self, found: str) -> str:
        """The record that the resolver sends people to."""
        url = await self._resolver.where(found)
        path = doi.below(url, self._url)
        if path is None:
            raise doi.elsewhere(found, url, self.name)
        kind, _, rest = path.strip("/").partition("/")
        name = self._known(rest) or rest if kind == "doi" else rest
        if kind not in ("record", "records", "doi") or not ID.fullmatch(name):
            raise RefNotFound(f"The DOI {found} leads to a page of {self.name} that is not a record.")
        return name

    async def _files(self, record: _Record, identity: str) -> list[_File]:
        if isinstance(record.files, list):  # Zenodo's own form, and that of the Invenio before it
            return record.files
        return (await self._api.read(_Entries, f"{self._records}/{identity}/files", NO_FILES)).entries

    def _path(self, found: str, asked: str, identity: str) -> str:
        if asked == identity or not self._prefixes:
            return found
        prefix = next((prefix for prefix in self._prefixes if found.lower().startswith(prefix.lower())), self._prefixes[0])
        return prefix + identity


def _planned(one: _File) -> File:
    return file(one.links.content or one.links.download or one.links.self, one.key, one.size, one.checksum or "")
