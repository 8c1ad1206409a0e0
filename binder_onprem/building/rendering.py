"""Completing a screened Dockerfile for this site: users, mirrors, and what repo2docker's own templates take for granted.

Called by `prepare` on the host; pure text. Gives no secret: mirrors are build arguments, which the finished image does not keep.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from binder_onprem.host.recipe import without_account
from binder_onprem.model import fingerprint

if TYPE_CHECKING:
    from binder_onprem.host.sources import Sources

DEFAULTS: Final = {"NB_USER": "jovyan", "NB_UID": "1000"}
"""What repo2docker gives to each build as arguments."""
TOOLS_NAME: Final = "localhost/binder-onprem/tools"
TOOLS: Final = (
    "autoconf", "automake", "build-essential", "bzip2", "file", "gnupg", "libbz2-dev", "libcurl4-openssl-dev", "libffi-dev", "libjpeg-dev",
    "liblzma-dev", "libncurses-dev", "libpng-dev", "libpq-dev", "libreadline-dev", "libsqlite3-dev", "libssl-dev", "libtool", "libxml2-dev",
    "libxslt1-dev", "libyaml-dev", "patch", "pkg-config", "tzdata", "unzip", "wget", "xz-utils", "zlib1g-dev",
)  # fmt: skip
"""What the image that repo2docker's buildpacks are written for has, and their scripts and people's packages rely on."""
_ARGUMENT: Final = re.compile(rf"^(ARG)[ \t]+({'|'.join(DEFAULTS)})[ \t]*$", re.IGNORECASE | re.MULTILINE)
_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"


def with_arguments(dockerfile: str) -> str:
    """Give repo2docker's two build arguments their values where the Dockerfile asks for them without a default."""
    return _ARGUMENT.sub(lambda match: f"{match[1]} {match[2]}={DEFAULTS[match[2].upper()]}", dockerfile)


def on_tools(dockerfile: str, base: str, sources: Sources) -> str:
    """Put a Dockerfile that repo2docker rendered onto this site's base image with `tools`.

    Args:
        dockerfile: Screened, so that its FROM is a line of its own.
        base: The image it begins with.
        sources: Mirrors for what the base image's own configuration does not cover.
    """
    before, line, after = dockerfile.partition(f"FROM {base}\n")
    return before + (f"FROM {tools_image(base)}\n" if line else "") + "".join(f"{word}\n" for word in _head(sources)) + after


def tools(base: str) -> str:
    """Dockerfile of the image that repo2docker's own buildpacks stand on: the base image with what their scripts call, root's as they expect."""
    # Its own environment would come before conda's in a login shell, which is what repo2docker's entry point is.
    install = f"apt-get -qq update && apt-get install -qy --no-install-recommends {' '.join(TOOLS)} && apt-get clean"
    remove = "rm -rf /var/lib/apt/lists/* /etc/profile.d/binder-onprem.sh"
    environment = 'ENV VIRTUAL_ENV="" UV_OVERRIDE="" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    return f"FROM {base}\nUSER root\nRUN DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; {install} && {remove}\n{environment}\n"


def tools_image(base: str) -> str:
    """Name of that image in podman's storage; another one for another base image or other tools."""
    return f"{TOOLS_NAME}:{fingerprint(tools(base))[:12]}"


def mirrors(sources: Sources) -> dict[str, str]:
    """The site's mirrors by name as an image may know them: without accounts, and none that would break out of a line of a script."""
    urls = {"conda": sources.conda, "cran": sources.cran, "npm": sources.npm, "julia": sources.julia}
    return {name: without_account(url)[0] for name, url in urls.items() if url and not re.search(r"[\s\"'`$\\;&|<>]", url)}


def _head(sources: Sources) -> list[str]:
    found = mirrors(sources)
    # Conda's own settings lie in the base image. These are for the time of the build, when programs come that do not read them yet.
    build = {"CONDA_SSL_VERIFY": _CERTIFICATES, "MAMBA_SSL_VERIFY": _CERTIFICATES}
    if "conda" in found:
        build |= {"CONDA_CHANNEL_ALIAS": found["conda"], "MAMBA_CHANNEL_ALIAS": found["conda"]}
    kept = {"NPM_CONFIG_REGISTRY": found.get("npm"), "JULIA_PKG_SERVER": found.get("julia")}
    return [f"ARG {name}={value}" for name, value in build.items()] + [f"ENV {name}={value}" for name, value in kept.items() if value]
