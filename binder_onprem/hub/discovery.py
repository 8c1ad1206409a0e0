"""What an OpenID provider says of itself, read when the hub starts and kept, so that a provider that is down then does not keep the hub down."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import requests

from binder_onprem.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config
    from binder_onprem.hub.outside import Outside

OK: Final = 200


@dataclass(frozen=True, slots=True)
class Provider:
    """Its three URLs that a log-in needs."""

    issuer: str
    authorize: str
    token: str
    userinfo: str


def discovered(config: Config, issuer: str, outside: Outside) -> Provider:
    """The provider's URLs; those it told last while it does not answer.

    Args:
        config: The site.
        issuer: The provider.
        outside: The way to it.

    Raises:
        ConfigError: It does not answer and never has, or is no OpenID provider.
    """
    kept = config.home / "hub" / "openid.json"
    try:
        found = ask(outside, issuer)
    except ConfigError:
        before = _kept(kept)
        if before is None or before.issuer != issuer:
            raise
        return before
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def _kept(file: Path) -> Provider | None:
    try:
        return Provider(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def ask(outside: Outside, issuer: str) -> Provider:
    """Ask it now. Raises `ConfigError`."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        status, _, body = outside.ask("GET", url)
        if status != OK:
            raise requests.HTTPError(status)
        told: Any = json.loads(body)
        return Provider(issuer, *(_url(told[key]) for key in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")))
    except requests.RequestException as error:
        raise ConfigError(f"auth.issuer: {url} does not answer as it should ({_why(error)}). Is it the provider's issuer?") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"auth.issuer: {url} is no OpenID provider's configuration.") from None


def _why(error: requests.RequestException) -> str:
    return f"HTTP {error.args[0]}" if type(error) is requests.HTTPError else type(error).__name__


def _url(value: object) -> str:
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        raise ValueError("no URL")
    return value
