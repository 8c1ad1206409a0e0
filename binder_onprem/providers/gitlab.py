"""A GitLab: ``gl/<escaped namespace>/<ref>``, by its REST API, version 4."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import InvalidSpec, ProviderUnavailable, RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display
from binder_onprem.providers.git import open_to_anybody
from binder_onprem.providers.links import FULL_SHA, OLD_DEFAULTS, bad_form, checked, decoded, escaped, ref_name, segments, shown
from binder_onprem.providers.refs import NONSENSE, default_notice
from binder_onprem.providers.remembered import Remembered

if TYPE_CHECKING:
    from binder_onprem.config import GitLabProvider
    from binder_onprem.providers.reader import Reader

FORM: Final = "<escaped namespace>/<ref>"
SEGMENT: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,254}")
DEPTH: Final = 21
"""Groups within groups, twenty at the most, and the project."""
MISSING: Final = "The repository does not exist, is private, or has no such branch, tag or commit. Check the link."
FORBIDDEN: Final = "GitLab does not let this site's token read this repository, though anybody may. The administrator must look at the token."


class GitLab:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
        token: For the API, or "".
    """

    name = "GitLab"

    def __init__(self, config: GitLabProvider, reader: Reader, token: str = "") -> None:
        self.prefix = config.prefix
        self.display_config = display.gitlab(config)
        self._url = config.url.rstrip("/")
        self._api = (config.api or f"{self._url}/api/v4").rstrip("/")
        self._reader = reader
        self._token = bool(token)
        self._remembered = Remembered(reader, "GitLab", {"PRIVATE-TOKEN": token} if token else None)

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        quoted, slash, rest = raw.partition("/")
        if not slash or not quoted:
            raise bad_form(FORM, path, f"{quoted}/HEAD" if "%2f" in quoted.lower() else None)
        parts = segments(decoded(quoted).removesuffix(".git"))
        if len(parts) == 1:
            group, project, *ref = raw.split("/", 2)
            raise bad_form(FORM, path, f"{escaped(f'{group}/{project}')}/{ref[0] if ref else 'HEAD'}")
        if len(parts) > DEPTH or not all(SEGMENT.fullmatch(part) for part in parts):
            raise InvalidSpec(f'"{shown("/".join(parts))}" cannot be a repository on GitLab.')
        return RepoSpec(self.prefix, raw, f"{self._url}/{'/'.join(parts)}.git", ref_name(rest), slug("-".join(parts)))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`. While the API does not answer, a full commit is taken as it is.

        What only the site's token may read is not there, as at `github`.
        """
        namespace = spec.url.removeprefix(self._url + "/").removesuffix(".git")
        notice = None
        try:
            commit = await self._commit(namespace, spec.ref)
        except RefNotFound:
            if spec.ref not in OLD_DEFAULTS:
                raise
            commit, notice = await self._commit(namespace, "HEAD"), default_notice(spec.ref)
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
        namespace = spec.url.removeprefix(self._url + "/").removesuffix(".git")
        return ResolvedRepo(spec, commit, f"{spec.path.partition('/')[0]}/{commit}", f"{self._url}/{namespace}/-/tree/{commit}", notice)

    async def _commit(self, namespace: str, ref: str) -> str:
        answer = await self._remembered.get(f"{self._api}/projects/{escaped(namespace)}/repository/commits/{escaped(ref)}")
        if self._token and answer.status not in (401, 404) and not await open_to_anybody(self._reader, f"{self._url}/{namespace}.git"):
            raise RefNotFound(MISSING)
        if answer.status != 200:  # noqa: PLR2004
            raise _failure(answer.status, known=self._token)
        try:
            commit = str(json.loads(answer.body)["id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ProviderUnavailable(NONSENSE) from None
        if not FULL_SHA.fullmatch(commit):
            raise ProviderUnavailable(NONSENSE)
        return commit


def _failure(status: int, *, known: bool) -> RefNotFound | ProviderUnavailable:
    if status == 401 and known:  # noqa: PLR2004 - with a token: the token's fault
        return ProviderUnavailable("GitLab refuses this site's token. The administrator must renew it.")
    if status == 403 and known:  # noqa: PLR2004 - it may not read the API, say
        return ProviderUnavailable(FORBIDDEN)
    return RefNotFound(MISSING)
