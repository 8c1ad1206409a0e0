"""Any Mercurial server by URL: ``hg/<escaped URL>/<ref>``. Asks one question of Mercurial's wire protocol; no subprocess.

Only http and https: over ssh the client runs a program that the link could name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from binder_onprem.content import Content
from binder_onprem.errors import InvalidSpec, ProviderUnavailable, RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display
from binder_onprem.providers.giturls import address
from binder_onprem.providers.links import FULL_SHA, bad_form, checked, decoded, ref_name
from binder_onprem.providers.refs import no_ref

if TYPE_CHECKING:
    from binder_onprem.config.providers import MercurialProvider
    from binder_onprem.providers.reader import Reader

FORM: Final = "<escaped URL>/<ref>"
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")
"""Bookmarks, branches and tags that cannot be taken for an expression over revisions."""
ANSWER: Final = re.compile(rb"([01]) ([^\n]*)\n?")
NONSENSE: Final = "The repository's host answered something that is not Mercurial. Check the repository's address."


class Mercurial:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
    """

    name = "Mercurial"

    def __init__(self, config: MercurialProvider, reader: Reader) -> None:
        self.prefix = config.prefix
        self.display_config = display.mercurial(config)
        self._protocols = config.protocols
        self._reader = reader

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        quoted, slash, rest = raw.partition("/")
        if not slash or not quoted or not rest:
            raise bad_form(FORM, path, f"{quoted}/HEAD" if "%" in quoted else None)
        url, parts = address(decoded(quoted), self._protocols)
        ref = ref_name(rest)
        if not NAME.fullmatch(ref):
            raise InvalidSpec(f'"{ref}" cannot be the name of a branch, bookmark, tag or changeset here. Use its 40 digits instead.')
        return RepoSpec(self.prefix, raw, url, ref, slug("-".join(parts[-2:])))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`."""
        commit = spec.ref
        if not FULL_SHA.fullmatch(commit):
            commit = await self._lookup(spec.url, "default" if commit == "HEAD" else commit)
        plan = Content("mercurial")
        return ResolvedRepo(spec, commit, f"{spec.path.partition('/')[0]}/{commit}", spec.url, content=plan)

    async def _lookup(self, url: str, name: str) -> str:
        answer = await self._reader.get(f"{url}?cmd=lookup&key={quote(name, safe='')}", {"Accept": "application/mercurial-0.1"})
        if answer.status != 200:  # noqa: PLR2004
            raise RefNotFound("The repository does not exist or is private. Check its address; this site reads public repositories only.")
        found = ANSWER.fullmatch(answer.body)
        if found is None or not answer.headers.get("Content-Type", "").startswith("application/mercurial-"):
            raise ProviderUnavailable(NONSENSE)
        commit = found[2].decode("ascii", "replace")
        if found[1] == b"0" or set(commit) == {"0"}:
            raise no_ref(name)
        if not FULL_SHA.fullmatch(commit):
            raise ProviderUnavailable(NONSENSE)
        return commit
