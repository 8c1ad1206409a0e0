"""Where images are kept and sessions run: settings that cannot work together are refused, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from binder_onprem.config import Config
from binder_onprem.host import engine_files, parts, ports

REMOTE = {
    "kind": "remote",
    "address": "registry.uni.example:5000",
    "push_account_file": "/etc/binder/push",
    "pull_account_file": "/etc/binder/pull",
    "ca_file": "/etc/binder/ca.pem",
}
CLUSTER = {"kind": "kubernetes", "kubeconfig_file": "/etc/binder/kubeconfig"}


def config(**settings: Any) -> Config:
    return Config.model_validate({"registry": REMOTE, "sessions": CLUSTER} | settings)


def test_by_default_everything_is_here() -> None:
    here = Config()
    assert (here.cluster, here.remote) == (None, None)
    assert (here.registry_url, here.image_prefix) == ("http://127.0.0.1:8589", "127.0.0.1:8589/binder")
    assert here.push_account == here.pull_account == here.secrets / "registry-account"


def test_a_registry_on_another_machine() -> None:
    there = config()
    assert (there.registry_url, there.image_prefix) == ("https://registry.uni.example:5000", "registry.uni.example:5000/binder")
    assert (there.push_account, there.pull_account) == (Path("/etc/binder/push"), Path("/etc/binder/pull"))
    assert there.registry_ca == Path("/etc/binder/ca.pem")
    without = config(registry={key: value for key, value in REMOTE.items() if key != "ca_file"}, network={"ca_file": "/etc/site.pem"})
    assert without.registry_ca == Path("/etc/site.pem")


@pytest.mark.parametrize("address", ["registry.uni.example", "https://registry.uni.example:5000", "Registry:5000", "r:0", "r:99999", "r:5000/x"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        config(registry=REMOTE | {"address": address})


def test_no_registry_of_ours_runs_beside_it_and_its_port_is_free() -> None:
    there = config()
    assert "registry" not in {part.name for part in parts.parts(there)}
    assert all("registry" not in part.after for part in parts.parts(there))
    assert "registry" in {part.name for part in parts.parts(Config())}


def test_podman_finds_the_certificates_in_a_home_of_its_own() -> None:
    there = config(home="/var/lib/b")
    certificate = Path("/var/lib/b/etc/trust/.config/containers/certs.d/registry.uni.example:5000/ca.crt")
    podman = next(part for part in parts.parts(there) if part.name == "podman")
    assert engine_files.certificate(there) == certificate
    assert dict(podman.env)["HOME"] == "/var/lib/b/etc/trust"
    assert certificate in podman.files
    here = next(part for part in parts.parts(Config()) if part.name == "podman")
    assert dict(here.env)["HOME"] == "/root"


def test_only_a_registry_on_loopback_goes_without_tls() -> None:
    from binder_onprem.host.machine import look  # noqa: PLC0415 - asks this machine

    facts = look(Path("/"))
    assert "insecure" not in engine_files.files(config(), facts)["registries.conf"]
    assert "insecure" in engine_files.files(Config(), facts)["registries.conf"]


def test_its_port_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.host.probes.held", lambda _host, _port: True)
    assert Config().registry_port in ports.taken(Config(), ())
    assert config().registry_port not in ports.taken(config(), ())


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"registry": {"kind": "local"}}, "registry.kind must be remote"),
    ({"projects": {"enabled": True}, "auth": {"kind": "pam"}}, "projects are volumes of this machine"),
    ({"sessions": CLUSTER | {"profiles": {"gpu": {}}}}, "choice.profiles has no such profile"),
    ({"choice": {"profiles": {"gpu": {"devices": ["/dev/nvidia0"]}}}}, r"give sessions.profiles.gpu.resources"),
    ({"choice": {"data": {"course": {"path": "/srv/course"}}}}, r"give sessions.claims.course"),
    ({"sessions": CLUSTER | {"kubeconfig_file": "kubeconfig"}}, "must be an absolute path"),
    ({"sessions": CLUSTER | {"namespace": "Binder"}}, "namespace"),
    ({"sessions": CLUSTER | {"node_selector": {"-x": "y"}}}, "node_selector"),
    ({"sessions": CLUSTER | {"memory_request": 0}}, "memory_request"),
    ({"sessions": CLUSTER | {"memory_request": 1.5}}, "memory_request"),
    ({"sessions": CLUSTER | {"tolerations": [{"key": "x", "effect": "Sometimes"}]}}, "effect"),
]


@pytest.mark.parametrize(("settings", "said"), FAULTS)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**settings)


def test_a_gpu_is_a_profile_with_a_resource() -> None:
    gpu = {"resources": {"nvidia.com/gpu": 1}, "node_selector": {"gpu": "yes"}, "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}
    site = config(choice={"profiles": {"gpu": {"title": "with a GPU"}}}, sessions=CLUSTER | {"profiles": {"gpu": gpu}})
    assert site.cluster
    assert site.cluster.profile("gpu").resources == {"nvidia.com/gpu": 1}
    assert site.cluster.profile("").resources == {}
