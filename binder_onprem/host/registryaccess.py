"""The registry as this machine speaks to it: its account, and the certificates by which one on another machine is trusted.

`up`, `check` and `building.registry` use it. No proxy stands between: it is this Binder's own, here or on the same campus.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from binder_onprem.errors import RegistryUnavailable

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.request import OpenerDirector

    from binder_onprem.config import Config


def trust(config: Config) -> ssl.SSLContext:
    """By which a remote registry is looked at. Raises `RegistryUnavailable` when the bundle cannot be read."""
    try:
        return ssl.create_default_context(cafile=str(config.registry_ca) if config.registry_ca else None)
    except (OSError, ssl.SSLError) as error:
        raise RegistryUnavailable(f"The certificates in {config.registry_ca} cannot be read. The administrator must look into them.") from error


def opener(config: Config) -> OpenerDirector:
    """For single requests to `Config.registry_url`. Raises as `trust`."""
    return build_opener(ProxyHandler({}), *([HTTPSHandler(context=trust(config))] if config.remote else []))


def connection(config: Config, seconds: float) -> HTTPConnection:
    """For several requests, one after the other. Raises as `trust`."""
    if config.remote:
        return HTTPSConnection(config.registry_host, timeout=seconds, context=trust(config))
    return HTTPConnection(config.registry_host, timeout=seconds)


def basic(account: Path) -> str:
    """The value of ``Authorization`` for the account in a file (``user:password``). Raises OSError."""
    return "Basic " + b64encode(account.read_bytes().strip()).decode()
