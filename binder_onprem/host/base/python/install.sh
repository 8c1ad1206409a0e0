#!/bin/sh
# Runs as jovyan: fills the environment /srv/venv from a lock. Arguments: the lock, and a file of further packages of the site's choice.
cd "$(dirname "$0")" || exit
set -a
# shellcheck source=/dev/null
# The index with its account, if it has one: a secret of the build, in no layer.
. /run/secrets/index
set +a
export UV_CACHE_DIR=/tmp/uv-cache UV_LINK_MODE=copy PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# A bundle's wheels, where there are some: no index is asked then, but for further packages that it does not have.
here="" locks=.
if [ -d wheels ]; then
    here="--no-index --find-links=wheels" locks=/tmp/locks
    mkdir "$locks"
    for lock in *.lock; do sed --sandbox -f wheels/built.sed "$lock" >"$locks/$lock"; done
fi
further() { UV_OVERRIDE=/etc/binder-onprem/uv-overrides.txt uv pip install -q --compile-bytecode "$@"; }
python3 -m venv /srv/venv
# shellcheck disable=SC2086 # words on purpose
pip install -q --no-deps --require-hashes $here -r "$locks/installer.lock"
# shellcheck disable=SC2086 # the same
uv pip install -q --no-deps --require-hashes --compile-bytecode $here -r "$locks/$1"
if [ -s "${2:-}" ]; then
    # shellcheck disable=SC2086 # the same
    { [ -n "$here" ] && further $here -r "$2"; } || further -r "$2"
fi
if [ "$1" = requirements.lock ]; then
    mkdir -p /srv/venv/etc/jupyter/labconfig
    cp jupyter_server_config.json /srv/venv/etc/jupyter/
    cp page_config.json /srv/venv/etc/jupyter/labconfig/
fi
# A hub's own pages, not a session's.
rm -rf /srv/venv/share/jupyterhub/static/components
rm -rf /tmp/uv-cache /tmp/locks "$HOME/.cache"
uv --version
uv pip list 2>/dev/null | grep -E '^(jupyter-repo2docker|jupyterhub|jupyterlab|notebook) ' || true
