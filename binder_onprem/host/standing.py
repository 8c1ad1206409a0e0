"""What a site was last brought up with, of that which is in the names of units, bridges and rules: those are taken down by the old names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from binder_onprem.host.site_files import put

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config


def remember(config: Config) -> None:
    """Write down what the site is brought up with now."""
    put(_file(config), json.dumps({"port": config.listen.port, "pool": config.network.pool}) + "\n", 0o644)


def as_it_stands(config: Config) -> Config:
    """The settings with the port and the range of the last `up`; the settings themselves where there was none."""
    try:
        kept = json.loads(_file(config).read_text(encoding="utf-8"))
        port, pool = int(kept["port"]), str(kept["pool"])
    except (OSError, ValueError, KeyError, TypeError):
        return config
    listen = config.listen.model_copy(update={"port": port})
    return config.model_copy(update={"listen": listen, "network": config.network.model_copy(update={"pool": pool})})


def known(config: Config) -> bool:
    """Whether the site was ever brought up."""
    return _file(config).exists()


def _file(config: Config) -> Path:
    return config.home / "etc" / "standing.json"
