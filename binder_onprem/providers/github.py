"""GitHub and GitHub Enterprise: ``gh/user/repo/ref``, by its REST API."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from binder_onprem.errors import InvalidSpec, ProviderUnavailable, RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display
from binder_onprem.providers.git import open_to_anybody
from binder_onprem.providers.links import FULL_SHA, OLD_DEFAULTS, bad_form, checked, decoded, ref_name, shown
from binder_onprem.providers.ratelimit import RateLimit
from binder_onprem.providers.refs import NONSENSE, default_notice, no_ref
from binder_onprem.providers.remembered import Remembered

if TYPE_CHECKING:
    from binder_onprem.config import GitHubProvider
    from binder_onprem.providers.reader import Reader

FORM: Final = "user/repo/ref"
USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
REPO: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._][A-Za-z0-9._-]{0,99}")
MISSING: Final = "The repository does not exist, is private, or has no such branch, tag or commit. Check the link."
FORBIDDEN: Final = "GitHub does not let this site's token read this repository, though anybody may. The administrator must look at the token."


class GitHub:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
        token: For the API, or "".
    """

    name = "GitHub"

    def __init__(self, config: GitHubProvider, reader: Reader, token: str = "") -> None:
        self.prefix = config.prefix
        self.display_config = display.github(config)
        self._url = config.url.rstrip("/")
        self._api = config.api.rstrip("/")
        self._remembered = Remembered(reader, "GitHub", {"Authorization": f"Bearer {token}"} if token else None)
        self._reader = reader
        self._known = bool(token)
        self._rate = RateLimit()

    @property
    def rate_remaining(self) -> int | None:
        """Requests that the API still answers."""
        return self._rate.remaining

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        parts = raw.split("/", 2)
        if len(parts) != 3 or not all(parts):  # noqa: PLR2004 - user, repo, ref
            complete = len(parts) == 2 and all(parts) and parts[1] not in {*OLD_DEFAULTS, "HEAD"}  # noqa: PLR2004
            raise bad_form(FORM, path, f"{raw}/HEAD" if complete else None)
        user, repo = decoded(parts[0]), decoded(parts[1]).removesuffix(".git")
        if not USER.fullmatch(user) or not REPO.fullmatch(repo):
            raise InvalidSpec(f'"{shown(user)}/{shown(repo)}" cannot be a repository on GitHub. {bad_form(FORM, path, None).message}')
        return RepoSpec(self.prefix, raw, f"{self._url}/{user}/{repo}", ref_name(parts[2]), slug(f"{user}-{repo}"))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`. While the API does not answer, a full commit is taken as it is.

        What only the site's token may read is not there: it serves for look-ups, and whoever launches a private repository does so with a
        credential of `access`.
        """
        owner = spec.url.removeprefix(self._url + "/")
        notice = None
        try:
            commit = await self._commit(owner, spec.ref)
        except RefNotFound:
            if spec.ref not in OLD_DEFAULTS:
                raise
            commit, notice = await self._commit(owner, "HEAD"), default_notice(spec.ref)
        except ProviderUnavailable:
            if not FULL_SHA.fullmatch(spec.ref):
                raise
            commit = spec.ref
        return self.at(spec, commit, notice)

    def asks(self, spec: RepoSpec) -> bool:
        """See `interfaces.Clonable`."""
        return not FULL_SHA.fullmatch(spec.ref)

    def at(self, spec: RepoSpec, commit: str, notice: str | None) -> ResolvedRepo:
        """See `interfaces.Clonable`."""
        owner = spec.url.removeprefix(self._url + "/")
        return ResolvedRepo(spec, commit, f"{owner}/{commit}", f"{self._url}/{owner}/tree/{commit}", notice)

    async def _commit(self, owner: str, ref: str) -> str:
        url = f"{self._api}/repos/{owner}/commits/{quote(ref, safe='/')}"
        answer = await self._remembered.get(url, {"Accept": "application/vnd.github.sha", "X-GitHub-Api-Version": "2022-11-28"})
        self._rate.check(answer)
        if self._known and answer.status not in (401, 404) and not await open_to_anybody(self._reader, f"{self._url}/{owner}"):
            raise RefNotFound(MISSING)
        if answer.status != 200:  # noqa: PLR2004
            raise _failure(answer.status, ref, known=self._known)
        return _sha(answer.body)


def _failure(status: int, ref: str, *, known: bool) -> RefNotFound | ProviderUnavailable:
    if status == 401 and known:  # noqa: PLR2004 - of our token; a GitHub of somebody's own may answer so to anybody
        return ProviderUnavailable("GitHub refuses this site's token. The administrator must renew it.")
    if status == 403 and known:  # noqa: PLR2004 - an organisation that admits no such token, say
        return ProviderUnavailable(FORBIDDEN)
    if status in (409, 422):
        return no_ref(ref)
    return RefNotFound(MISSING)


def _sha(body: bytes) -> str:
    try:
        text = body.decode("ascii") if not body.lstrip().startswith(b"{") else str(json.loads(body)["sha"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProviderUnavailable(NONSENSE) from None
    if not FULL_SHA.fullmatch(text.strip()):
        raise ProviderUnavailable(NONSENSE)
    return text.strip()
