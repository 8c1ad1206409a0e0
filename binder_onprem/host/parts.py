"""The processes of one site as frozen values: what is started, as whom, how one sees that it answers, how it stops.

`supervision` runs them, `up` waits for them, `check` and `status` show them. Nothing here starts anything. Secrets are never in an argument
list; those that have to be in an environment are `hidden` there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.config import CONFIG_VARIABLE, HOME_VARIABLE
from binder_onprem.config.auth import PamAccounts
from binder_onprem.errors import HostUnfit
from binder_onprem.host import engine_files, settingfiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.config import Config

USER: Final = "binder-onprem"
"""Runs what needs no privilege: the proxy and the registry."""
PACKAGE: Final = Path(__file__).parents[1]
PROXY: Final = PACKAGE / "hub" / "proxy.cjs"
"""Goes into the proxy's process; says why itself."""
READING: Final = ("CAP_DAC_READ_SEARCH",)
"""Of root's rights, the one to read what is another account's: settings and the files that they name."""
UNPRIVILEGED_PORT: Final = 1024
FORWARDED: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    Attributes:
        name: Short, as in ``status``.
        argv: Program (absolute path) and arguments.
        ready: ``http://…`` that answers with anything below 500 (401 counts), or ``unix:/path`` that accepts connections.
        env: Environment beside `PATH`.
        hidden: The part of it that nobody else may read.
        user: Unprivileged user; None: root.
        capabilities: All that a confined part of root's may; None: what root may, as a part that makes containers has to.
        group: Whether stopping it stops its children. Never for what has containers as children.
        grace: Seconds between SIGTERM and SIGKILL.
        files: Configuration it reads at its start: when their contents change it is restarted.
        after: Parts that must run before it.
        writes: Directories it writes to; a confined part writes nowhere else.
    """

    name: str
    argv: tuple[str, ...]
    ready: str
    env: tuple[tuple[str, str], ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    capabilities: tuple[str, ...] | None = None
    group: bool = True
    grace: int = 10
    files: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    writes: tuple[Path, ...] = ()

    def revision(self) -> str:
        """12 hex digits over everything that shapes the process; another revision means a restart is due."""
        digest = hashlib.sha256(repr((self.argv, self.env, self.hidden, self.user)).encode())
        for file in self.files:
            with contextlib.suppress(OSError):  # absent, or another account's
                digest.update(file.read_bytes())
        return digest.hexdigest()[:12]


def parts(config: Config) -> tuple[Part, ...]:
    """All processes of a site, in the order in which they start; of a machine that builds for another one, just those that this needs."""
    # The sample is the same everywhere, and its link leads to the loopback of whoever builds.
    samples = [_samples(config)] if config.samples else []
    if config.building_for:
        return (_podman(config), *samples, _daemon(config))
    registry = [] if config.remote else [_registry(config)]
    return (*registry, _podman(config), *samples, _proxy(config), _hub(config), _daemon(config))


def _registry(config: Config) -> Part:
    file = config.home / "etc" / "registry.yml"
    program = shutil.which("docker-registry") or shutil.which("registry") or "/usr/bin/docker-registry"
    return Part(
        "registry",
        (program, "serve", str(file)),
        f"{config.registry_url}/v2/",
        user=USER,
        files=(file, config.home / "etc" / "registry.htpasswd"),
        writes=(config.home / "registry",),
    )


def _podman(config: Config) -> Part:
    etc, trust, certificate = config.home / "etc", engine_files.trust(config), engine_files.certificate(config)
    program = shutil.which("podman") or "/usr/bin/podman"
    own = {"HOME": str(trust)} if trust else {}
    return Part(
        "podman",
        (program, "system", "service", "--time=0", f"unix://{config.podman_socket}"),
        f"unix:{config.podman_socket}",
        env=tuple({**engine_files.environment(config), **own}.items()),
        hidden=tuple(engine_files.proxied(config.network.proxy, config.network.no_proxy).items()),
        group=False,
        files=(*(etc / name for name in ("containers.conf", "storage.conf", "registries.conf")), *([certificate] if certificate else [])),
    )


def _proxy(config: Config) -> Part:
    program = Path(sys.prefix) / "node" / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    daemon = f"http://127.0.0.1:{config.daemon_port}"
    argv: tuple[str, ...] = (
        shutil.which("node") or "/usr/bin/node",
        f"--require={PROXY}",
        str(program),
        f"--ip={config.listen.host}",
        f"--port={config.listen.port}",
        "--api-ip=127.0.0.1",
        f"--api-port={config.proxy_api_port}",
        f"--default-target={daemon}",
        f"--error-target={daemon}{config.listen.base_url}_error/",
    )
    if config.listen.port < UNPRIVILEGED_PORT:
        setpriv = shutil.which("setpriv") or "/usr/bin/setpriv"
        drop = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service")
        argv = (setpriv, *drop, "--", *argv)
    token = secret(config, "proxy-token")
    user = USER if config.listen.port >= UNPRIVILEGED_PORT else None
    return Part(
        "proxy", argv, f"http://127.0.0.1:{config.proxy_api_port}/api/routes", hidden=(("CONFIGPROXY_AUTH_TOKEN", token),), user=user, files=(PROXY,)
    )


def _hub(config: Config) -> Part:
    return Part(
        "hub",
        (sys.executable, "-m", "jupyterhub", "-f", str(PACKAGE / "hub" / "config_file.py")),
        f"http://127.0.0.1:{config.hub_port}{config.hub_base_url}hub/api",
        env=(*_ours(config), *_cluster(config)),
        # PAM's modules are anybody's, and may be about to do anything.
        capabilities=None if isinstance(config.auth, PamAccounts) else READING,
        writes=(config.home,),
        group=False,
        files=(*_sources(config), *_named(config.auth), *_starts_with(config)),
        after=("podman", "proxy"),
    )


def _daemon(config: Config) -> Part:
    """That of a whole Binder, or of a machine that builds for another one."""
    building = config.building_for
    pages = f"http://127.0.0.1:{config.daemon_port}{config.listen.base_url}versions"  # not health, which also tells of the others
    others = () if building else ("hub",) if config.remote else ("registry", "hub")
    return Part(
        "daemon",
        (str(Path(sys.executable).parent / "binder-onprem"), "serve"),
        f"unix:{config.builder_socket}" if building else pages,
        env=_ours(config),
        grace=20,
        files=(*_sources(config), *_named(building or config.providers), *_speaks_by(config)),
        after=("podman", *others),
    )


def _named(settings: object) -> tuple[Path, ...]:
    """Files that settings name, tokens and the like: a renewed one holds after `up`."""
    return tuple(file for _, file in settingfiles.named(settings))


def _starts_with(config: Config) -> tuple[Path, ...]:
    """What sessions are started with elsewhere, or from elsewhere."""
    if config.cluster:
        return (config.cluster.kubeconfig_file,)
    return (config.pull_account,) if config.remote else ()


def _speaks_by(config: Config) -> tuple[Path, ...]:
    """By what the daemon speaks to a cluster, and to a registry on another machine: it reads them when it starts."""
    cluster = [config.cluster.kubeconfig_file] if config.cluster else []
    registry = [config.push_account, *([config.registry_ca] if config.registry_ca else [])] if config.remote else []
    return (*cluster, *registry)


def _samples(config: Config) -> Part:
    return Part(
        "samples",
        (sys.executable, "-m", "binder_onprem.host.samples"),
        f"http://127.0.0.1:{config.samples_port}/sample.git/info/refs?service=git-upload-pack",
        env=_ours(config),
        capabilities=READING,
        files=(PACKAGE / "host" / "samples.py", *sorted(path for path in (PACKAGE / "host" / "sample").rglob("*") if path.is_file())),
    )


def _ours(config: Config) -> tuple[tuple[str, str], ...]:
    """Environment of our own Python processes: where the site is, and what an administrator's shell says about certificates."""
    named = os.environ.get(CONFIG_VARIABLE)
    env: Mapping[str, str] = {
        **engine_files.environment(config),
        HOME_VARIABLE: str(config.home),
        **({CONFIG_VARIABLE: str(Path(named).absolute())} if named else {}),
        **{name: os.environ[name] for name in FORWARDED if name in os.environ},
        "PYTHONUNBUFFERED": "1",
    }
    return tuple(env.items())


def _cluster(config: Config) -> tuple[tuple[str, str], ...]:
    """Where KubeSpawner looks for the cluster."""
    return (("KUBECONFIG", str(config.cluster.kubeconfig_file)),) if config.cluster else ()


def _sources(config: Config) -> tuple[Path, ...]:
    named = os.environ.get(CONFIG_VARIABLE)
    code = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return (*code, Path(named) if named else config.home / "config.yaml", config.home / "images.json", config.home / "etc" / "sources.json")


def secret(config: Config, name: str) -> str:
    """A secret's text; "" as long as `up` has not made it. Raises `HostUnfit` where this account may not read it."""
    try:
        return (config.secrets / name).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise HostUnfit(f"The Binder below {config.home} belongs to another account. Run this as root or with sudo.") from None
