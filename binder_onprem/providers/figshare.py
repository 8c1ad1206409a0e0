"""Figshare: ``figshare/<DOI>[.v<n>]``, by its REST API, version 2."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, RootModel

from binder_onprem.errors import RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display, doi
from binder_onprem.providers.links import checked, decoded
from binder_onprem.providers.records import content, file, version
from binder_onprem.providers.remembered import Remembered

if TYPE_CHECKING:
    from binder_onprem.config.archives import FigshareProvider
    from binder_onprem.content import Content
    from binder_onprem.providers.reader import Reader

OWN: Final = re.compile(r"10\.[0-9.]+/m9\.figshare\.(?P<id>[0-9]{1,18})(\.v(?P<version>[0-9]{1,6}))?", re.IGNORECASE)
LAST: Final = re.compile(r"\.v(?P<version>[0-9]{1,6})$")
PAGE: Final = re.compile(r"/articles/([a-z_]+/)?[^/]+/(?P<id>[0-9]{1,18})(/(?P<version>[0-9]{1,6}))?/?")
MISSING: Final = "The article, or this version of it, does not exist or is not public. Check the DOI."
NO_FILES: Final = "The article has no files that everybody may fetch."


class _File(BaseModel):
    name: str
    download_url: str = ""
    size: int | None = None
    is_link_only: bool = False
    computed_md5: str | None = None
    supplied_md5: str | None = None


class _Article(BaseModel):
    files: list[_File] = Field(default_factory=list)


class _Version(BaseModel):
    version: int


class _Versions(RootModel[list[_Version]]):
    pass


class Figshare:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
        token: For the API, or "".
    """

    name = "Figshare"

    def __init__(self, config: FigshareProvider, reader: Reader, token: str = "") -> None:
        self.prefix = config.prefix
        self.display_config = display.figshare(config)
        self._url = config.url
        self._articles = f"{config.api}/articles"
        self._api = Remembered(reader, "Figshare", {"Authorization": f"token {token}"} if token else None)
        self._resolver = doi.Resolver(Remembered(reader, "doi.org"), config.doi)

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        found = doi.named(decoded(raw), "10.6084/m9.figshare.9782777.v1")
        own = OWN.fullmatch(found)
        return RepoSpec(self.prefix, raw, self._resolver.page(found), "", slug(f"figshare-{own['id'] if own else found}"))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`. Without a version the DOI means the latest one."""
        found = spec.url.removeprefix(self._resolver.page(""))
        article, number = await self._asked(found)
        number = number or await self._latest(article)
        identity = version(f"{article}.v{number}")
        plan = await self._planned(f"{self._articles}/{article}/versions/{number}")
        path = LAST.sub("", found) + f".v{number}"
        return ResolvedRepo(spec, identity, path, self._resolver.page(path), content=plan)

    async def _asked(self, found: str) -> tuple[int, int]:
        """Article and version, 0 where none is named."""
        if own := OWN.fullmatch(found):
            return int(own["id"]), int(own["version"] or 0)
        url = await self._resolver.where(found)
        if not self._ours(url):
            raise doi.elsewhere(found, url, self.name)
        page, last = PAGE.fullmatch(urlsplit(url).path), LAST.search(found)
        if page is None:
            raise RefNotFound(f"The DOI {found} leads to a page of {self.name} that is not an article.")
        return int(page["id"]), int((last and last["version"]) or page["version"] or 0)

    def _ours(self, url: str) -> bool:
        """Institutions have portals of their own below Figshare's domain."""
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return False
        own = urlsplit(self._url).hostname or ""
        return host == own or host.endswith(f".{own}")

    async def _latest(self, article: int) -> int:
        versions = await self._api.read(_Versions, f"{self._articles}/{article}/versions", MISSING)
        if not versions.root:
            raise RefNotFound(MISSING)
        return max(one.version for one in versions.root)

    async def _planned(self, url: str) -> Content:
        article = await self._api.read(_Article, url, MISSING)
        here = [one for one in article.files if not one.is_link_only]
        files = (file(one.download_url, one.name, one.size, f"md5:{one.computed_md5 or one.supplied_md5 or ''}") for one in here)
        return content(files, unpack=True, empty=NO_FILES)
