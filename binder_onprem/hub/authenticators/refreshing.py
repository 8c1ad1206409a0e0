"""Asks anew who somebody is, as JupyterHub does it (`Authenticator.auth_refresh_age`), so that who leaves a group loses its rights while logged in.

Mixed into the authenticators. The hub asks at the first request of a person after `auth.refresh` seconds, whichever of her tokens it brings; what
this answers as `False` ends them all until she has logged in again (`auth_refresh_strict`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

Answer = bool | dict[str, Any]
"""True: all holds; False: she has to log in again; else what changes."""
PATIENCE: Final = 6.0
"""Seconds until whoever keeps the accounts must have answered: the daemon, which waits for it, gives the hub ten."""
HOLDS: Final = 5.0
"""Seconds that an answer serves every request: of several at once, each would use up the one refresh token that a provider has given."""


class Refreshing:
    """One question at a time for each person; while nobody answers, what was known holds."""

    log: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._refreshes: dict[str, asyncio.Task[Answer]] = {}

    async def again(self, user: Any, handler: Any) -> Answer:
        """Ask. Raises whatever when there is no answer."""
        raise NotImplementedError

    async def refresh_user(self, user: Any, handler: Any = None, **_more: Any) -> Answer:
        """JupyterHub's question."""
        name = str(user.name)
        task = self._refreshes.get(name)
        if task is None:
            task = self._refreshes[name] = asyncio.ensure_future(self._asked(user, handler))
            task.add_done_callback(lambda _: asyncio.get_running_loop().call_later(HOLDS, self._refreshes.pop, name, None))
        answer = await asyncio.shield(task)
        return dict(answer) if isinstance(answer, dict) else answer  # the hub writes into it

    async def _asked(self, user: Any, handler: Any) -> Answer:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.again(user, handler)
        except Exception as error:  # noqa: BLE001 - each kind has its own
            self.log.warning("accounts cannot be asked anew: %s; what was known of %s holds", type(error).__name__, user.name)
            return True
