"""Repositories that many people launch, for the front page where the site wants that: counted from the records of launches, public ones only.

A repository is shown when anybody can read it, asked of its host anew without any account; what cannot be asked is not shown. One person alone
makes nothing popular.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import BinderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from binder_onprem.interfaces import Provider, Store
    from binder_onprem.model import LaunchAudit

logger = logging.getLogger(__name__)

LAUNCHES: Final = 5000
"""Newest launches that are looked at."""
DAYS: Final = 14
PEOPLE: Final = 2
"""So many must have launched it."""
CANDIDATES: Final = 3
"""For each place on the page so many repositories are asked whether they are public, at the most."""


@dataclass(frozen=True, slots=True)
class Popular:
    """One repository.

    Attributes:
        provider, path: As in the link that is used most.
        launches: In the last two weeks.
    """

    provider: str
    path: str
    launches: int


def ranking(launches: Iterable[LaunchAudit], providers: Mapping[str, Provider], now: float) -> list[tuple[str, Popular]]:
    """Clone URL and repository, the one with most people first; of launches that worked.

    Args:
        launches: Records, in any order.
        providers: Reads what they name.
        now: Unix seconds.
    """
    links: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    people: defaultdict[str, set[str]] = defaultdict(set)
    for launch in launches:
        url = _url(launch, providers)
        if url and launch.outcome == "ready" and launch.began > now - DAYS * 86400:
            links[url][launch.provider, launch.path] += 1
            people[url].add(launch.client)
    order = sorted((url for url in links if len(people[url]) >= PEOPLE), key=lambda url: (-len(people[url]), -links[url].total(), url))
    return [(url, Popular(*links[url].most_common(1)[0][0], links[url].total())) for url in order]


def _url(launch: LaunchAudit, providers: Mapping[str, Provider]) -> str | None:
    provider = providers.get(launch.provider)
    try:
        return provider.parse(launch.path).url if provider else None
    except BinderError:
        return None  # the record has the link cut, or the provider reads links otherwise now


class Popularity:
    """The pass that keeps the list.

    Args:
        store: Records of launches.
        providers: By prefix.
        public: Whether anybody can read a clone URL; False where that cannot be asked.
        places: How many are shown; 0: none, and nothing is asked.
        now: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        public: Callable[[str], Awaitable[bool]],
        places: int,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._providers = providers
        self._public = public
        self._places = places
        self._now = now
        self._shown: tuple[Popular, ...] = ()

    @property
    def shown(self) -> Sequence[Popular]:
        """As of the last look."""
        return self._shown

    async def look(self) -> None:
        """Count and ask anew. Raises `StoreUnavailable`; the list stays then as it is."""
        if not self._places:
            return
        found: list[Popular] = []
        for url, popular in ranking(await self._store.launches(LAUNCHES), self._providers, self._now())[: self._places * CANDIDATES]:
            if len(found) < self._places and await self._public(url):
                found.append(popular)
        self._shown = tuple(found)
