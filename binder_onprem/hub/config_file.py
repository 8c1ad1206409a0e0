"""JupyterHub's configuration file: ``jupyterhub -f config_file.py``. Every value follows from our own configuration; there is nothing to edit.

People meet the hub only to log in, where the site wants that (`logins`); otherwise nobody does, and the proxy has no route to it (`hub_proxy`). It
starts and stops sessions for the daemon, which speaks to its port on loopback, keeps the proxy's table true, and reads from it when a session was
last used.

The daemon's rights are the least that work: each was taken away on JupyterHub 6.1 and something broke. ``admin:users`` is what ``POST users/NAME``
asks for; ``users`` with ``list:users`` and ``delete:users`` is refused there, and a filter by group does not match a user that is still to be made
(it cannot make administrators since 5.1, CVE-2024-41942, and no tokens). ``read:servers``: without it the list of users tells nothing of their
servers, and following a start is refused. ``start:servers``, ``delete:servers``: starting, stopping. ``proxy``: reading the routes, and having them
checked at once when the proxy has restarted. It has no ``tokens``, ``shares``, ``shutdown``, ``access:servers`` or ``admin:server_state``.
Session users have no rights at all.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from binder_onprem.config import load
from binder_onprem.hub.hub_proxy import SessionsOnly
from binder_onprem.hub.scopes import CALLBACK, CLIENT
from binder_onprem.hub.session import Confinement
from binder_onprem.hub.starting import PULL_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config

SCOPES = ("admin:users", "read:servers", "start:servers", "delete:servers", "proxy")
"""Of the service `binder`."""


def _secret(config: Config, name: str) -> str:
    return (config.secrets / name).read_text(encoding="utf-8").strip()


def _base(config: Config) -> str | None:
    try:
        return str(json.loads((config.home / "images.json").read_text(encoding="utf-8"))["base"])
    except (OSError, ValueError, KeyError):
        return None


def _client(config: Config) -> dict[str, Any]:
    """The service as an OAuth client, for people who log in."""
    return {
        "oauth_client_id": CLIENT,
        "oauth_redirect_uri": f"{config.listen.base_url}{CALLBACK}",
        "oauth_no_confirm": True,
        # Whatever its owner may, which is nearly nothing: so a role that is given or taken holds for those who are logged in.
        "oauth_client_allowed_scopes": ["inherit"],
    }


def _forget_tokens(database: Path) -> None:
    """Forget the tokens that came from the configuration: the hub adds those of now, and would take those of before for ever."""
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'api_tokens'").fetchone():
            connection.execute("DELETE FROM api_tokens WHERE service_id IS NOT NULL AND note = 'from config'")


@event.listens_for(Engine, "connect")
def _write_ahead(connection: Any, _record: Any) -> None:
    """Commits that survive a killed process without waiting for the disk each time; only a power cut may cost the last of them."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _containers(c: Any, config: Config) -> Any:
    """Sessions in podman; the spawner's settings."""
    from binder_onprem.hub.podman_session import Podman  # noqa: PLC0415 - one of two ways, and the other is not loaded
    from binder_onprem.hub.spawner import PodmanSpawner  # noqa: PLC0415 - same

    PodmanSpawner.podman = Podman(config.podman_socket, config.pull_account.read_text(encoding="utf-8").strip(), tls=config.remote is not None)
    PodmanSpawner.site = Confinement.of(config, _base(config))
    PodmanSpawner.answer_timeout = config.session.start_timeout
    c.JupyterHub.spawner_class = PodmanSpawner
    return c.PodmanSpawner


def _pods(c: Any, config: Config) -> Any:
    """Sessions in a cluster; KUBECONFIG is in this process's environment."""
    from binder_onprem.hub.pod import GRACE  # noqa: PLC0415 - as above
    from binder_onprem.hub.pod_spawner import PodSpawner  # noqa: PLC0415 - as above
    from binder_onprem.kube.pod import COMPONENT  # noqa: PLC0415 - as above

    assert config.cluster  # noqa: S101 - asked by the caller
    PodSpawner.cluster = config.cluster
    PodSpawner.site = Confinement.of(config, _base(config))
    PodSpawner.answer_timeout = config.session.start_timeout
    c.JupyterHub.spawner_class = PodSpawner
    spawner = c.PodSpawner
    spawner.namespace, spawner.component_label = config.cluster.namespace, COMPONENT
    spawner.events_enabled = False  # what people are told follows from the pod's own state
    spawner.delete_grace_period = GRACE
    spawner.k8s_api_request_timeout = 10
    return spawner


def configure(c: Any, config: Config) -> None:
    """Set everything on JupyterHub's configuration object `c`."""
    directory = config.home / "hub"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    hub = c.JupyterHub
    hub.bind_url = f"http://{config.listen.host}:{config.listen.port}{config.hub_base_url}"
    hub.hub_bind_url = f"http://127.0.0.1:{config.hub_port}{config.hub_base_url}hub/"
    hub.hub_connect_ip = "127.0.0.1"
    hub.db_url = f"sqlite:///{directory / 'jupyterhub.sqlite'}"
    _forget_tokens(directory / "jupyterhub.sqlite")
    hub.upgrade_db = True
    hub.cookie_secret_file = str(directory / "cookie-secret")
    hub.cleanup_servers = False
    hub.cleanup_proxy = False
    hub.authenticator_class = "null"
    c.Authenticator.any_allow_config = True  # nobody logs in, on purpose: no warning at each start
    hub.allow_named_servers = True  # sessions of people who have logged in
    hub.concurrent_spawn_limit = config.session.total
    hub.active_server_limit = 0
    hub.init_spawners_timeout = 10
    # Routes are checked with it, so it bounds how long a restarted proxy stays empty; it costs one request on loopback.
    hub.last_activity_interval = 4
    hub.trust_user_provided_tokens = True  # it is 32 random bytes of ours: hashing it 16384 times at each request would only cost
    hub.services = [{"name": "binder", "api_token": _secret(config, "hub-token"), "display": False} | _client(config)]
    hub.load_roles = [
        {"name": "binder", "services": ["binder"], "scopes": list(SCOPES)},
        {"name": "user", "scopes": []},
        {"name": "server", "scopes": []},
    ]
    hub.logging_config = {"formatters": {"console": {"class": "binder_onprem.logs.JsonLines", "format": "", "datefmt": ""}}}
    hub.tornado_settings = {
        "slow_spawn_timeout": 3,
        "slow_stop_timeout": 10,
        "headers": {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"},
    }

    if config.accounts is not None:
        from binder_onprem.hub import logins  # noqa: PLC0415 - where nobody logs in the hub starts without it

        logins.configure(c, config, config.accounts)

    hub.proxy_class = SessionsOnly
    proxy = c.ConfigurableHTTPProxy
    proxy.should_start = False
    proxy.api_url = f"http://127.0.0.1:{config.proxy_api_port}"
    proxy.auth_token = _secret(config, "proxy-token")

    spawner = _pods(c, config) if config.cluster else _containers(c, config)
    spawner.start_timeout = int(PULL_SECONDS + config.session.start_timeout) + 30
    spawner.http_timeout = int(config.session.start_timeout)
    spawner.poll_interval = 2
    spawner.server_token_scopes = ["users:activity!user"]  # of a token that nobody gets; the role above leaves nothing of it
    spawner.options_from_form = "passthrough"
    spawner.apply_user_options = lambda _spawner, _options: None  # `start` checks them


if "get_config" in globals():
    os.umask(0o077)
    configure(globals()["get_config"](), load())
