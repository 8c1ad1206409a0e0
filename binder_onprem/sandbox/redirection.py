"""repo2docker's own build context, turned to this site's mirrors and distribution.

Called in the sandbox by `engine` on a context that it has just written. Conda's lock files name a server in each line, and so does the download
of micromamba: no setting of conda's reaches these, so the files are changed. What a repository wrote itself is left alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MICROMAMBA: Final = re.compile(r'^URL="https?://[^"]*/(micromamba-[^"/]*)"', re.MULTILINE)
_LOCKED: Final = re.compile(r"^https?://[^/\s]+/(?=[\w.-]+/(?:noarch|linux-\w+)/)", re.MULTILINE)
_UBUNTU: Final = "ubuntu-$(. /etc/os-release && echo $VERSION_ID |"
_ANY: Final = "$(. /etc/os-release && echo $ID-$VERSION_ID |"
"""Posit keeps R by distribution: repo2docker stands on Ubuntu only, our base image mostly on Debian."""


def redirect(context: Path, mirrors: Mapping[str, str]) -> None:
    """Change the Dockerfile and the build scripts.

    Args:
        context: The build context.
        mirrors: ``conda``: the channel alias, if there is one.
    """
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text(encoding="utf-8").replace(_UBUNTU, _ANY), encoding="utf-8")
    conda = mirrors.get("conda", "").rstrip("/")
    if not conda:
        return
    for file in (context / "build_script_files").glob("*"):
        text = file.read_text(encoding="utf-8")
        turned = _MICROMAMBA.sub(lambda match: f'URL="{conda}/conda-forge/${{CONDA_PLATFORM}}/{match[1]}"', text)
        file.write_text(_LOCKED.sub(lambda _: f"{conda}/", turned), encoding="utf-8")


def buildpacks(known: list[Any], mirrors: Mapping[str, str]) -> list[Any]:
    """repo2docker's buildpacks, R's with this site's CRAN mirror in the place of dated snapshots.

    Args:
        known: repo2docker's classes.
        mirrors: ``cran``: URL, if there is one.
    """
    cran = mirrors.get("cran", "")
    if not cran:
        return known

    def mirror(*_: object, **__: object) -> str:
        return cran

    return [type(pack.__name__, (pack,), {"get_rspm_snapshot_url": mirror}) if pack.__name__ == "RBuildPack" else pack for pack in known]
