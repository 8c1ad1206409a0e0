"""A stand-in for a conda mirror on loopback: keeps what it was asked for, and serves a micromamba that is a script of ours.

The script asks the mirror as the real one would (the lock file's URLs, the channel alias), then makes the environment of what the base image has.
"""

from __future__ import annotations

import io
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MICROMAMBA = r"""#!/bin/bash
set -e
fetch() { curl --silent --show-error --fail --output /dev/null "$1"; }
alias_() { echo "${MAMBA_CHANNEL_ALIAS:?}"; grep -qx "channel_alias: $MAMBA_CHANNEL_ALIAS" /etc/conda/.condarc; }
case "$1 $2" in
"shell hook")
    echo 'micromamba() { /usr/local/bin/micromamba "$@"; };'
    echo 'mamba() { if [ "$1" = activate ]; then PATH="${@: -1}/bin:$PATH"; else "$CONDA_DIR/bin/mamba" "$@"; fi; };'
    ;;
"install "*)
    fetch "$(alias_)/conda-forge/linux-64/repodata.json.zst"
    mkdir -p "$CONDA_DIR/bin" "$CONDA_DIR/etc/profile.d"
    cp "$0" "$CONDA_DIR/bin/mamba"
    touch "$CONDA_DIR/etc/profile.d/conda.sh"
    ;;
"create -p")
    grep '^http' "$5" | head -3 | while read -r url; do fetch "${url%%#*}"; done
    python3 -m venv --without-pip "$3"
    mkdir -p "$3/conda-meta"
    echo /srv/venv/lib/python3*/site-packages > "$(echo "$3"/lib/python3*/site-packages)/base.pth"
    for program in jupyter-lab pip; do sed "1s|.*|#!$3/bin/python|" "/srv/venv/bin/$program" > "$3/bin/$program"; chmod 755 "$3/bin/$program"; done
    ln -s /srv/venv/share "$3/share"; ln -s /srv/venv/etc "$3/etc"; ln -s /bin/true "$3/bin/npm"
    ;;
"env update")
    fetch "$(alias_)/conda-forge/noarch/repodata.json.zst"
    cp "$6" "$4/conda-meta/updated"
    ;;
esac
"""


def _archive() -> bytes:
    target, data = io.BytesIO(), MICROMAMBA.encode()
    with tarfile.open(fileobj=target, mode="w:bz2") as archive:
        entry = tarfile.TarInfo("bin/micromamba")
        entry.size, entry.mode = len(data), 0o755
        archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


@contextmanager
def serving(port: int) -> Iterator[list[str]]:
    """Serve on loopback; yields the paths that were asked for, in order."""
    asked: list[str] = []
    archive = _archive()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = archive if "/micromamba-" in self.path else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield asked
        server.shutdown()
