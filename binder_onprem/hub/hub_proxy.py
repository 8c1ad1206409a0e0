"""The hub's side of configurable-http-proxy: routes for sessions and none for the hub itself.

JupyterHub always gives itself a route, by which its login, its error pages and its API would be on the public port. Nobody but the daemon speaks
to it, on its own port. Used by `config_file`; it runs inside the hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyterhub.proxy import ConfigurableHTTPProxy

if TYPE_CHECKING:
    from jupyterhub.objects import Hub


class SessionsOnly(ConfigurableHTTPProxy):  # type: ignore[misc]
    """The proxy as the hub sees it."""

    async def add_hub_route(self, hub: Hub) -> None:
        """Leave it out; asked for at each check of the routes."""
