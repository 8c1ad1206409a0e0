"""What else uses the range of containers' networks. Asked by `up` before it makes them, and by `check`."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from binder_onprem.host import engine_files, firewall

if TYPE_CHECKING:
    from binder_onprem.config import Config

FIX = "Set network.pool to another private range."


def conflict(config: Config) -> str:
    """What uses it, in words; "" if nothing does."""
    pool = IPv4Network(config.network.pool)
    for route in _routes(firewall.bridges(config)):
        if route.overlaps(pool):
            return f"{pool} overlaps with {route}, which this machine routes"
    for other in _neighbours(config):
        if other.overlaps(pool):
            return f"{pool} overlaps with {other} of another Binder on this machine"
    return ""


def claim(config: Config) -> None:
    """Let other sites of this machine know the range; `down` and a reboot take that back."""
    (engine_files.volatile(config) / "pool").write_text(f"{config.network.pool}\n{config.home}\n", encoding="utf-8")


def _neighbours(config: Config) -> list[IPv4Network]:
    """Ranges of other sites: their bridges exist only while containers run on them. One whose home was removed by hand has none any more."""
    found = []
    for file in engine_files.VOLATILE.glob("*/pool"):
        if file.parent != engine_files.volatile(config):
            with suppress(OSError, ValueError):
                pool, _, home = file.read_text(encoding="utf-8").partition("\n")
                if Path(home.strip()).is_dir():
                    found.append(IPv4Network(pool))
    return found


def _routes(own: tuple[str, ...]) -> list[IPv4Network]:
    try:
        done = subprocess.run(("ip", "-4", "route", "show"), capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return []
    lines = [line.split() for line in done.stdout.splitlines()]
    return [IPv4Network(words[0]) for words in lines if words and words[0][0].isdigit() and not set(own) & set(words)]
