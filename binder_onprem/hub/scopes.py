"""Names that the hub and the daemon have to agree on: the daemon as a service and OAuth client, and the scopes that stand for roles."""

from __future__ import annotations

from typing import Final

SERVICE: Final = "binder"
CLIENT: Final = f"service-{SERVICE}"
"""The daemon's name as an OAuth client."""
ACCESS: Final = f"access:services!service={SERVICE}"
SCOPE: Final = "custom:binder-onprem:"
"""Before a role's name."""
CALLBACK: Final = "oauth_callback"
"""Below our base URL: where the hub sends a browser that has logged in."""
