"""Accounts of the site's own."""

from __future__ import annotations

import asyncio
from typing import Any

import bcrypt
from nativeauthenticator import NativeAuthenticator

from binder_onprem.hub.authenticators import NAME, SERVICE
from binder_onprem.hub.nativeaccounts import BYTES


class Native(NativeAuthenticator):  # type: ignore[misc]
    """Accounts of the site's own; a program's or a session's name cannot be taken."""

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:  # noqa: ARG002 - JupyterHub's signature
        """Who it is; None for a wrong password, a waiting account, or too many tries. Hashing takes a thread, not the hub's time."""
        name = self.normalize_username(data["username"])
        account = self.get_user(name)
        if account is None or self.is_blocked(name):
            return None
        allowed, stored = bool(account.is_authorized), bytes(account.password)
        if await asyncio.to_thread(bcrypt.checkpw, data["password"].encode()[:BYTES], stored) and allowed:
            self.successful_login(name)
            return str(name)
        self.add_login_attempt(name)
        return None

    def is_password_strong(self, password: str) -> bool:
        """Whether it will do; the hash looks at so many bytes only."""
        return len(password.encode()) <= BYTES and bool(super().is_password_strong(password))

    def get_handlers(self, app: Any) -> list[tuple[str, Any]]:
        """Its pages for people. The log-in is JupyterHub's own (its variant is for an older hub), and administrators have commands."""
        return [(path, handler) for path, handler in super().get_handlers(app) if path in ("/signup", "/change-password")]

    def delete_user(self, user: Any) -> None:
        """Keep the account when the hub forgets a person's log-ins; `accounts remove` is what takes it away."""

    def validate_username(self, username: str) -> bool:
        """Whether an account may be called so."""
        usable = username.isprintable() and len(username) <= NAME and not username.startswith(SERVICE)
        return usable and bool(super().validate_username(username))
