"""The shell scripts of the fast Python buildpack's layers.

Called by `buildpack`; pure text. They run in confined containers of the base image, with ``bash -e -o pipefail``, never on the host.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from binder_onprem.model import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER: Final = ("ipykernel", "jupyterhub>=6.1", "jupyterlab>=4.5", "jupyter-server>=2.17", "notebook>=7.5")
"""Named in every installation: uv keeps the installed versions where it can and moves them together with the repository's where it must."""

_INSTALL: Final = """\
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
# A cache of this container's own: what one repository puts into it never reaches another.
export UV_CACHE_DIR="$work/cache" UV_NO_PROGRESS=1
{files}
python=$(command -v python)
prefix=$("$python" -c 'import sys; print(sys.prefix)')
install() {{ uv pip install --compile-bytecode {arguments} -r "$work/requirements.txt" "$@"; }}
uv pip freeze --quiet --exclude-editable --python "$python" | grep -E '^[A-Za-z0-9._-]+==' > "$work/installed.txt"
# Beside the server as it is; else with the server moved to versions that go together with what is asked for.
for beside in "-c $work/installed.txt" "-r $work/server.txt"; do
    if install --dry-run --python "$python" $beside > "$work/log" 2>&1; then
        install --python "$python" $beside
        exit 0
    elif ! grep -qE 'No solution found|unsatisfiable|[Cc]onflicting' "$work/log"; then
        cat "$work/log" >&2
        exit 1
    fi
done
echo 'These requirements do not go together with the Jupyter server. They get an environment of their own for the kernel.'
uv venv --quiet --python "$python" "$prefix/kernel"
install --python "$prefix/kernel/bin/python" ipykernel
"$prefix/kernel/bin/python" -m ipykernel install --prefix "$prefix" --name python3 --display-name 'Python 3 (ipykernel)' 2>/dev/null
"""


def _file(name: str, lines: Sequence[str]) -> str:
    content = "\n".join(lines)
    # A word that no line of the content can be, whatever the repository has written there.
    end = f"END_{fingerprint(content)[:32]}"
    return f"cat > \"$work/{name}\" <<'{end}'\n{content}\n{end}"


def install_script(lines: Sequence[str], constraints: Sequence[str], arguments: Sequence[str]) -> str:
    """Install requirements beside the Jupyter server, or, where they cannot go together, into an environment of the kernel's own.

    Args:
        lines: Of a requirements file.
        constraints: Of a constraints file.
        arguments: Further words for uv.
    """
    files = [_file("requirements.txt", lines), _file("server.txt", SERVER)]
    words = list(map(shlex.quote, arguments))
    if constraints:
        files.append(_file("constraints.txt", constraints))
        words.append('-c "$work/constraints.txt"')
    return _INSTALL.format(files="\n".join(files), arguments=" ".join(words))


def package_script(*, dependencies: bool) -> str:
    """Install the repository itself as a package.

    Args:
        dependencies: Its dependencies, too; else they are there already.
    """
    flag = "" if dependencies else "--no-deps "
    return f"""\
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
export UV_CACHE_DIR="$work/cache" UV_NO_PROGRESS=1
python=$(command -v python)
if [ -x "$(dirname "$python")/../kernel/bin/python" ]; then python=$(dirname "$python")/../kernel/bin/python; fi
uv pip install --python "$python" --compile-bytecode {flag}.
"""


def apt_script(packages: Sequence[str]) -> str:
    """Install Debian packages, whose names were checked."""
    # apt's own sandbox changes its user, for which the container has no capability; it is itself one.
    return f"""\
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o APT::Sandbox::User=root update
apt-get -o APT::Sandbox::User=root install --yes --no-install-recommends -- {" ".join(map(shlex.quote, packages))}
apt-get -qq clean
rm -rf /var/lib/apt/lists/*
"""


def post_build_script(path: str) -> str:
    """Run ``postBuild`` by its own shebang, from the top of the repository."""
    quoted = shlex.quote(f"./{path}")
    return f"chmod +x {quoted}\n{quoted}\n"
