"""What a session's container is made of: pure, nothing here talks to podman or to the hub.

The spawner calls it. Options come over the hub's API and are checked here once more, although only our daemon may send them: an image that is
not ours by digest, or a name that could collide with another launch, never reaches the engine.
"""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from binder_onprem.choice import NAME, SEVERAL, VALUE, VARIABLE
from binder_onprem.config import SESSIONS_LOOPBACK
from binder_onprem.config.choice import RESERVED, Choices, Profile
from binder_onprem.hub.project_home import Project  # noqa: TC001 - pydantic reads it
from binder_onprem.terms import unfit

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config

PORT: Final = 8888
"""Where the server listens inside its container."""
AT_EASE: Final = 2
"""Servers that a processor brings up at once in the usual time."""
MOST: Final = 2.5
"""The usual time so often at the most: the reaper ends a start after three times."""
LOG_BYTES: Final = 1024**2
"""Bytes of a session's output that podman keeps."""

# The image's own entry point stays (tini, repo2docker's `start` script); this is its command. jupyter-lab is asked for first because `jupyter lab`
# would import a whole Python to find it. Notebook before version 7 knows the same settings under its own name.
_START: Final = """
for server in jupyter-lab jupyter-server; do
  if command -v "$server" >/dev/null 2>&1; then exec "$server" "$@"; fi
done
if command -v jupyter-notebook >/dev/null 2>&1; then
  for setting do shift; set -- "$@" "--NotebookApp.${setting#--ServerApp.}"; done
  exec jupyter-notebook "$@"
fi
echo "no jupyter-lab, jupyter-server or jupyter-notebook in PATH" >&2
exit 127
"""

_Name = Annotated[str, StringConstraints(pattern=rf"^(?:{NAME.pattern})?$")]
_Variable = Annotated[str, StringConstraints(pattern=f"^{VARIABLE.pattern}$")]
_Value = Annotated[str, StringConstraints(max_length=VALUE, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Text = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Options(BaseModel):
    """What the daemon sends with ``POST …/server``; unknown keys are refused.

    Attributes:
        image: ``<our prefix>/name@sha256:…``.
        token: The session's own token.
        launch_id: 16 hex digits; the container is named after it.
        profile: Name of a profile, "" for the site's usual limits.
        data: Names of data sets.
        env: Variables that the link sets.
        repo_url, binder_ref_url, binder_launch_host, binder_request, binder_persistent_request: Told to the session as BinderHub does.
        memory, cpus: Bytes and processors where they are not the site's own.
        idle, age: Seconds where they are not the site's own; the reaper's, kept here because they are the session's.
        environment: Further variables.
        project: What takes the place of the home.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    image: Annotated[str, StringConstraints(max_length=512)]
    token: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")] = Field(repr=False)
    launch_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    repo_url: _Text = ""
    binder_ref_url: _Text = ""
    binder_launch_host: _Text = ""
    binder_request: _Text = ""
    binder_persistent_request: _Text = ""
    profile: _Name = ""
    data: Annotated[list[_Name], Field(max_length=SEVERAL)] = Field(default_factory=list)
    env: Annotated[dict[_Variable, _Value], Field(max_length=SEVERAL)] = Field(default_factory=dict, repr=False)
    memory: Annotated[int, Field(ge=1024**2, le=1 << 50)] | None = None
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = None
    idle: Annotated[float, Field(gt=0)] | None = None
    age: Annotated[float, Field(gt=0)] | None = None
    environment: dict[str, str] = {}
    project: Project | None = None

    @field_validator("environment")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        if why := unfit(value):
            raise ValueError(why)
        return value

    @property
    def container(self) -> str:
        """The container's name: one per launch."""
        return f"binder-{self.launch_id}"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What every session of a site shares.

    Attributes:
        prefix: What images of ours begin with, without a slash at the end.
        base: The base image's reference, which lies beside the prefix, if it is known.
        memory: Bytes, swap included.
        disk: Bytes a session may write.
        cpus: CPUs.
        pids: Processes and threads.
        network: Podman's network for sessions.
        allow_origin: Another site that may use sessions from its pages, or None.
        proxy: Site's proxy for everything outside, without its account, or None.
        no_proxy: Hosts reached without it.
        users: User and group ids in a session's user namespace.
        choices: What links may choose.
        projects: Where the volumes of projects are mounted; None: there are none.
        ulimits: Name, soft and hard limit; hard ones never above this host's own, or the runtime refuses to start.
    """

    prefix: str
    memory: int
    cpus: float
    pids: int
    disk: int
    base: str | None = None
    network: str = "binder-sessions"
    allow_origin: str | None = None
    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    users: int = 65536
    ulimits: tuple[tuple[str, int, int], ...] = ()
    choices: Choices = field(default_factory=Choices)
    projects: Path | None = None
    kind: Literal["session"] = "session"

    @classmethod
    def of(cls, config: Config, base: str | None) -> Confinement:
        """Read from the site's configuration."""
        outside = config.network.sessions != "none"
        return cls(
            prefix=config.image_prefix,
            base=base,
            memory=int(config.session.memory),
            cpus=config.session.cpus,
            pids=config.session.pids,
            disk=int(config.session.disk),
            allow_origin=config.web.cors_allow_origin,
            proxy=config.network.proxy_told if outside else None,
            no_proxy=config.network.no_proxy,
            ulimits=_ulimits(),
            choices=config.choice,
            projects=config.project_volumes if config.projects.enabled else None,
        )


def published(launch_id: str) -> str:
    """The loopback address that a session's port is published on: its own, as far as some 65,000 suffice.

    An engine that is killed in the wrong moment leaves its rule for a port behind, and that rule comes first for whoever gets the port next.
    """
    return str(SESSIONS_LOOPBACK[1 + int(launch_id, 16) % (SESSIONS_LOOPBACK.num_addresses - 2)])


def _ulimits() -> tuple[tuple[str, int, int], ...]:
    """Podman's service does not apply the defaults of containers.conf to what comes by API, and its own exceed what a host may allow."""
    wanted = (("nofile", resource.RLIMIT_NOFILE, 4096, 1 << 20), ("nproc", resource.RLIMIT_NPROC, 4096, 8192))
    found = []
    for name, kind, soft, top in wanted:
        allowed = resource.getrlimit(kind)[1]
        hard = top if allowed == resource.RLIM_INFINITY else min(top, allowed)
        found.append((name, min(soft, hard), hard))
    return tuple(found)


def options(session: str, data: object, site: Confinement) -> Options:
    """Check what came over the API.

    Args:
        session: The session's name, the server's or else the user's; it must end with the launch id.
        data: The parsed JSON.
        site: Says which images are ours.

    Raises:
        ValueError: Something does not hold; the message does not repeat what came.
    """
    try:
        checked = Options.model_validate(data)
    except ValidationError as error:
        keys = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors(include_input=False)}))[:200]
        raise ValueError(f"options do not hold: {keys}") from None
    ours = re.compile(re.escape(site.prefix) + r"/[a-z0-9]+(?:-[a-z0-9]+)*@sha256:[0-9a-f]{64}")
    prebuilt = {listed.image for listed in site.choices.images.values()}
    if checked.image != site.base and checked.image not in prebuilt and not ours.fullmatch(checked.image):
        raise ValueError("the image is not one of ours by digest")
    if not session.endswith(f"-{checked.launch_id}"):
        raise ValueError("the session is not the launch's")
    if checked.profile not in ("", *site.choices.profiles) or not site.choices.data.keys() >= set(checked.data):
        raise ValueError("options do not hold: nothing of that name is ours to choose")
    if checked.project and site.projects is None:
        raise ValueError("options do not hold: project")
    if any(RESERVED.fullmatch(name) for name in checked.env):
        raise ValueError("options do not hold: env")
    return checked


def profile(chosen: Options, site: Confinement) -> Profile:
    """The chosen profile, an empty one for none."""
    return site.choices.profiles.get(chosen.profile) or Profile()


def memory(chosen: Options, site: Confinement) -> int:
    """Bytes of memory, swap included: by the terms of the launch, else of the profile, else of the site."""
    return int(chosen.memory or profile(chosen, site).memory or site.memory)


def command(base_url: str, site: Confinement) -> list[str]:
    """The container's command.

    The token is in the environment, not here: arguments are seen by every process. Kernels are never culled and the server never stops by
    itself, because the reaper decides; stopping is the site's page's task, so the quit button is off. XSRF and origin checks stay as they are.

    Args:
        base_url: Path of the session, ``/jupyter/user/NAME/``, percent-encoded.
        site: The site.
    """
    settings: dict[str, str | int | bool] = {
        "ip": "0.0.0.0",  # noqa: S104 - inside the container's own network namespace
        "port": PORT,
        "port_retries": 0,
        "base_url": base_url,
        "open_browser": False,
        "allow_root": True,  # an image whose user is root: it is nobody outside its user namespace
        "allow_remote_access": True,  # the Host header is the public one
        "trust_xheaders": True,
        "quit_button": False,
    }
    if site.allow_origin:
        settings["allow_origin"] = site.allow_origin
    return ["/bin/sh", "-c", _START, "session", *(f"--ServerApp.{key}={value}" for key, value in settings.items())]


def environment(chosen: Options, site: Confinement) -> dict[str, str]:
    """What the session is told; nothing of the hub's is among it."""
    own = {"BINDER_PROFILE": chosen.profile} if chosen.profile else {}
    if chosen.project:
        own |= chosen.project.directories()
    # The administrator's word about this repository comes after what its link says.
    told = (
        chosen.env
        | dict(chosen.environment)
        | own
        | {
            "JUPYTER_TOKEN": chosen.token,
            "BINDER_REPO_URL": chosen.repo_url,
            "BINDER_REF_URL": chosen.binder_ref_url,
            "BINDER_LAUNCH_HOST": chosen.binder_launch_host,
            "BINDER_REQUEST": chosen.binder_request,
            "BINDER_PERSISTENT_REQUEST": chosen.binder_persistent_request,
        }
    )
    if site.proxy:
        told |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), site.proxy)
        told |= dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(("localhost", "127.0.0.1", *site.no_proxy)))
    return told


def labels(chosen: Options, site: Confinement) -> dict[str, str]:
    """What the container says of itself, so that the truth can be rebuilt from it; people's names are not the engine's business."""
    name = "io.binder-onprem"
    told = {f"{name}.kind": site.kind, f"{name}.launch": chosen.launch_id, f"{name}.image": chosen.image}
    return told | ({f"{name}.project": chosen.project.id} if chosen.project else {})


def specification(base_url: str, chosen: Options, site: Confinement) -> dict[str, Any]:
    """The body of libpod's ``POST /containers/create``. The host port is podman's choice, on loopback."""
    period, wanted, bytes_ = 100_000, profile(chosen, site), memory(chosen, site)
    cpus = chosen.cpus or wanted.cpus or site.cpus
    mounts = [_mount(name, site.choices) for name in chosen.data]
    if chosen.project and site.projects:
        mounts.insert(0, chosen.project.mount(site.projects))
    return {
        "name": chosen.container,
        "image": chosen.image,
        "command": command(base_url, site),
        "env": environment(chosen, site),
        "labels": labels(chosen, site),
        "hostname": "binder",
        "netns": {"nsmode": "bridge"},
        "networks": {site.network: {}},
        "portmappings": [{"host_ip": published(chosen.launch_id), "container_port": PORT, "protocol": "tcp"}],
        "cgroupns": {"nsmode": "private"},  # podman shares the host's on control groups of version 1, where a nested host's mounts mislead runc
        **_namespace(chosen, site),
        "cap_drop": ["all"],
        "no_new_privileges": True,
        "privileged": False,
        "httpproxy": False,
        "env_host": False,
        "init": True,
        "systemd": "false",
        "restart_policy": "no",
        "image_volume_mode": "ignore",
        "shm_size": bytes_ // 4,
        **({"mounts": mounts} if mounts else {}),
        **({"devices": [{"path": name} for name in wanted.devices]} if wanted.devices else {}),
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "r_limits": [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in site.ulimits],
        "resource_limits": {
            "memory": {"limit": bytes_, "swap": bytes_},
            "cpu": {"period": period, "quota": int(cpus * period)},
            "pids": {"limit": wanted.pids or site.pids},
        },
    }


def _namespace(chosen: Options, site: Confinement) -> dict[str, Any]:
    """Ids of its own: any that are free, or those of the project, whose files have them."""
    if chosen.project:
        return {"userns": {"nsmode": "private"}, "idmappings": chosen.project.ids()}
    # Without this the API makes no user namespace at all, and says nothing.
    auto = {"AutoUserNs": True, "AutoUserNsOpts": {"Size": site.users}, "HostUIDMapping": False, "HostGIDMapping": False}
    return {"userns": {"nsmode": "auto"}, "idmappings": auto}


def patience(usual: float, starting: int, processors: int | None = None) -> float:
    """Seconds until a server must answer: a class that clicks at once shares the processors, and its sessions are slow, not broken.

    Args:
        usual: For one that starts alone.
        starting: Servers that are being waited for.
        processors: None for this machine's.
    """
    return usual * min(MOST, max(1.0, starting / (AT_EASE * (processors or os.cpu_count() or 1))))


def _mount(name: str, choices: Choices) -> dict[str, Any]:
    """A data set, read-only; the path is the administrator's, never the link's."""
    options = ["rbind", "ro", "nosuid", "nodev", "noexec"]
    return {"type": "bind", "source": str(choices.data[name].path), "destination": choices.place(name), "options": options}
