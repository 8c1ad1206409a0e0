#!/bin/sh
# Runs as jovyan: fills the environment /srv/venv from a lock. Arguments: the lock, and a file of further packages of the site's choice.
cd "$(dirname "$0")" || exit
set -a
# shellcheck source=/dev/null
# The index with its account, if it has one: a secret of the build, in no layer.
. /run/secrets/index
set +a
export UV_CACHE_DIR=/tmp/uv-cache UV_LINK_MODE=copy PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv /srv/venv
pip install -q --no-deps --require-hashes -r installer.lock
uv pip install -q --no-deps --require-hashes --compile-bytecode -r "$1"
if [ -s "${2:-}" ]; then
    UV_OVERRIDE=/etc/binder-onprem/uv-overrides.txt uv pip install -q --compile-bytecode -r "$2"
fi
if [ "$1" = requirements.lock ]; then
    mkdir -p /srv/venv/etc/jupyter/labconfig
    cp jupyter_server_config.json /srv/venv/etc/jupyter/
    cp page_config.json /srv/venv/etc/jupyter/labconfig/
fi
# A hub's own pages, not a session's.
rm -rf /srv/venv/share/jupyterhub/static/components
rm -rf /tmp/uv-cache "$HOME/.cache"
uv --version
uv pip list 2>/dev/null | grep -E '^(jupyter-repo2docker|jupyterhub|jupyterlab|notebook) ' || true
