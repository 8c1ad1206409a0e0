"""GitHub's gists: ``gist/user/id[/commit]``, by the REST API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from binder_onprem.errors import InvalidSpec, ProviderUnavailable, RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display
from binder_onprem.providers.github import USER
from binder_onprem.providers.links import FULL_SHA, OLD_DEFAULTS, bad_form, checked, decoded, shown
from binder_onprem.providers.ratelimit import RateLimit
from binder_onprem.providers.remembered import NONSENSE, OK, UNAUTHORIZED, Remembered

if TYPE_CHECKING:
    from binder_onprem.config.providers import GistProvider
    from binder_onprem.providers.reader import Answer, Reader

FORM: Final = "user/id/commit"
ID: Final = re.compile(r"[0-9a-f]{1,64}")
LATEST: Final = OLD_DEFAULTS | {"", "HEAD"}
MISSING: Final = "The gist does not exist. Check the link."
NOT_PUBLIC: Final = (
    "This is a secret gist, and this site launches public ones only. Make it public, or ask the administrator to allow secret gists (secret: true)."
)


class _Version(BaseModel):
    version: str


class _Gist(BaseModel):
    public: bool
    history: list[_Version] = Field(min_length=1)


class Gist:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
        token: For the API, or "".
    """

    name = "Gist"

    def __init__(self, config: GistProvider, reader: Reader, token: str = "") -> None:
        self.prefix = config.prefix
        self.display_config = display.gist(config)
        self._url = config.url
        self._gists = f"{config.api}/gists"
        self._secret = config.secret
        self._token = bool(token)
        self._api = Remembered(reader, "GitHub", {"Authorization": f"Bearer {token}"} if token else None)
        self._rate = RateLimit()

    @property
    def rate_remaining(self) -> int | None:
        """Requests that the API still answers."""
        return self._rate.remaining

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        parts = [decoded(part) for part in raw.split("/")]
        if len(parts) not in (2, 3) or not all(parts):
            raise bad_form(FORM, path, None)
        user, gist, ref = parts[0], parts[1].removesuffix(".git").lower(), parts[2] if len(parts) > 2 else "HEAD"  # noqa: PLR2004
        if not USER.fullmatch(user) or not ID.fullmatch(gist):
            raise InvalidSpec(f'"{shown(user)}/{shown(gist)}" cannot be a gist. {bad_form(FORM, path, None).message}')
        if ref not in LATEST and not FULL_SHA.fullmatch(ref.lower()):
            raise InvalidSpec(f'"{shown(ref)}" cannot be a version of a gist: give the full commit, 40 digits, or HEAD.')
        return RepoSpec(self.prefix, raw, f"{self._url}/{user}/{gist}.git", ref if ref in LATEST else ref.lower(), slug(gist))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`."""
        name = spec.url.removeprefix(self._url + "/").removesuffix(".git")
        answer = await self._api.get(f"{self._gists}/{name.partition('/')[2]}", {"Accept": "application/vnd.github+json"})
        self._rate.check(answer)
        found = self._read(answer)
        if not found.public and not self._secret:
            raise RefNotFound(NOT_PUBLIC)
        versions = [one.version for one in found.history]
        commit = versions[0] if spec.ref in LATEST else spec.ref
        if not FULL_SHA.fullmatch(commit):
            raise ProviderUnavailable(NONSENSE)
        if commit not in versions:
            raise RefNotFound(f"The gist has no version {commit[:12]}. Check the link, or use HEAD for the latest.")
        return ResolvedRepo(spec, commit, f"{name}/{commit}", f"{self._url}/{name}/{commit}")

    def _read(self, answer: Answer) -> _Gist:
        if answer.status == UNAUTHORIZED and self._token:
            raise ProviderUnavailable("GitHub refuses this site's token. The administrator must renew it.")
        if answer.status != OK:
            raise RefNotFound(MISSING)
        try:
            return _Gist.model_validate_json(answer.body)
        except ValueError:
            raise ProviderUnavailable(NONSENSE) from None
