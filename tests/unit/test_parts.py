"""The processes as values, and what the two supervisors are told about them."""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING

import pytest

from binder_onprem.config import CONFIG_VARIABLE, DEFAULT_HOME, Config
from binder_onprem.config.auth import PamAccounts
from binder_onprem.errors import ConfigError
from binder_onprem.host import parts, systemd
from binder_onprem.host.parts import Part
from binder_onprem.host.site_files import first_settings, put
from binder_onprem.host.supervisord import Supervisord

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    found = Config.model_validate({"home": tmp_path, "listen": {"port": 4000}})
    found.secrets.mkdir()
    (found.secrets / "proxy-token").write_text("canary-token\n")
    return found


def test_no_secret_in_any_argument(config: Config) -> None:
    assert not any("canary-token" in word for part in parts.parts(config) for word in part.argv)


def test_podman_reaches_registries_through_the_proxy_whose_account_only_root_reads(config: Config) -> None:
    site = Config.model_validate({"home": config.home, "network": {"proxy": "http://name:secret@proxy:3128", "no_proxy": [".uni.example"]}})
    (podman,) = [part for part in parts.parts(site) if part.hidden and part.name == "podman"]
    assert dict(podman.hidden) == {
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://name:secret@proxy:3128"),
        "NO_PROXY": "localhost,127.0.0.1,::1,.uni.example",
    }
    text = systemd.Systemd(site).text(podman)
    assert "secret@" not in text
    assert f"EnvironmentFile={site.secrets}/podman.env" in text
    assert podman.revision() != next(part for part in parts.parts(config) if part.name == "podman").revision()


def test_every_part_listens_on_loopback_or_where_people_come(config: Config) -> None:
    ready = {part.name: part.ready for part in parts.parts(config)}
    assert set(ready) == {"registry", "podman", "samples", "proxy", "hub", "daemon"}
    assert all(url.startswith(("http://127.0.0.1:", "unix:")) for url in ready.values())


def test_only_what_needs_root_is_root(config: Config) -> None:
    assert {part.name for part in parts.parts(config) if part.user} == {"proxy", "registry"}


def test_a_low_port_keeps_the_user(config: Config) -> None:
    low = Config.model_validate({"home": config.home, "listen": {"port": 80}})
    proxy = next(part for part in parts.parts(low) if part.name == "proxy")
    assert proxy.argv[0].endswith("setpriv")
    assert f"--reuid={parts.USER}" in proxy.argv


def test_samples_can_be_left_out(config: Config) -> None:
    assert "samples" not in {part.name for part in parts.parts(config.model_copy(update={"samples": False}))}


def test_a_renewed_token_is_a_reason_to_restart_who_reads_it(config: Config, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("course", "github")}
    for file in files.values():
        file.write_text("a")
    service = {"name": "course", "token_file": str(files["course"])}
    provider = {"kind": "github", "token_file": str(files["github"])}
    site = Config.model_validate({"home": config.home, "auth": {"kind": "pam", "services": [service]}, "providers": [provider]})

    def revisions() -> dict[str, str]:
        return {part.name: part.revision() for part in parts.parts(site)}

    before = revisions()
    files["course"].write_text("b")
    hub = revisions()
    assert {name for name in before if hub[name] != before[name]} == {"hub"}
    files["github"].write_text("b")
    assert {name for name, revision in revisions().items() if revision != hub[name]} == {"daemon"}
    files["course"].unlink()
    assert revisions()["hub"] not in (before["hub"], hub["hub"])


def test_a_renewed_account_of_a_registry_or_cluster_is_a_reason_to_restart_who_reads_it(config: Config, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("push", "pull", "ca", "kubeconfig")}
    remote = {"kind": "remote", "address": "registry.test:5000"} | {
        key: str(files[name]) for key, name in (("push_account_file", "push"), ("pull_account_file", "pull"), ("ca_file", "ca"))
    }
    here = Config.model_validate({"home": config.home, "registry": remote})
    cluster = {"kind": "kubernetes", "kubeconfig_file": str(files["kubeconfig"])}
    pods = Config.model_validate({"home": config.home, "registry": remote, "sessions": cluster})

    def restarted(site: Config, name: str) -> set[str]:
        files[name].write_text("a")
        before = {part.name: part.revision() for part in parts.parts(site)}
        files[name].write_text("b")
        return {part.name for part in parts.parts(site) if part.revision() != before[part.name]}

    assert {name: restarted(here, name) for name in files} == {"push": {"daemon"}, "pull": {"hub"}, "ca": {"daemon"}, "kubeconfig": set()}
    assert {name: restarted(pods, name) for name in files} == {"push": {"daemon"}, "pull": set(), "ca": {"daemon"}, "kubeconfig": {"hub", "daemon"}}


def test_a_revision_changes_with_what_shapes_the_process(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    one = Part("x", ("/bin/true",), "unix:/x", files=(file,))
    first = one.revision()
    assert one.revision() == first
    file.write_text("a")
    assert one.revision() != first
    assert Part("x", ("/bin/true", "-v"), "unix:/x").revision() != Part("x", ("/bin/true",), "unix:/x").revision()


def test_supervisords_file(config: Config) -> None:
    odd = Part("odd", ("/bin/echo", 'a "b" %s;c', "d\\e"), "unix:/x", env=(("NAME", 'v"%(x)s'),), group=False)
    text = Supervisord(config)._configuration([odd])
    reader = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(" ;",))
    reader.read_string(text)
    program = reader["program:odd"]
    assert program["command"] == r'"/bin/echo" "a \"b\" %%s;c" "d\\e"'
    assert program["stopasgroup"] == "false"
    assert "BINDER_ONPREM_REVISION" in program["environment"]
    assert reader["unix_http_server"]["chmod"] == "0700"


def test_units_of_systemd(config: Config, tmp_path: Path) -> None:
    keeper = systemd.Systemd(config, tmp_path)
    texts = {part.name: keeper.text(part) for part in parts.parts(config)}
    assert "canary-token" not in "".join(texts.values())
    assert "EnvironmentFile=" in texts["proxy"]
    assert "NoNewPrivileges=yes" in texts["proxy"]
    assert "User=binder-onprem" in texts["registry"]
    assert "KillMode=process\nDelegate=yes" in texts["podman"]
    assert "KillMode" not in texts["daemon"]
    assert "CapabilityBoundingSet=CAP_DAC_READ_SEARCH\n" in texts["hub"]
    assert "ProtectSystem=full" in texts["hub"]
    assert "ProtectProc" not in texts["hub"]  # it looks whether sessions live
    assert "PrivateTmp" not in texts["samples"]  # settings may lie there
    assert not any("Capability" in texts[name] for name in ("podman", "daemon"))
    asking = config.model_copy(update={"auth": PamAccounts(kind="pam")})
    assert "Capability" not in next(keeper.text(part) for part in parts.parts(asking) if part.name == "hub")
    assert all("Restart=always" in text and "Requires=binder-onprem-4000-ground.service" in text for text in texts.values())


def test_the_default_home_has_the_plain_names(tmp_path: Path) -> None:
    keeper = systemd.Systemd(Config(home=DEFAULT_HOME), tmp_path)
    assert "PartOf=binder-onprem.target" in keeper.text(Part("x", ("/bin/true",), "unix:/x"))


def test_words_of_a_unit_mean_themselves(config: Config, tmp_path: Path) -> None:
    text = systemd.Systemd(config, tmp_path).text(Part("x", ("/bin/echo", 'a "b" %h $HOME'), "unix:/x", env=(("N", "$x %h"),)))
    assert r'ExecStart="/bin/echo" "a \"b\" %%h $$HOME"' in text
    assert 'Environment="N=$x %%h"' in text


def test_the_first_settings_are_valid_and_written_once(tmp_path: Path) -> None:
    home = tmp_path / "new"
    assert first_settings(home)
    from binder_onprem.config import load  # noqa: PLC0415 - beside its use

    assert load(home=home).network.allow == ("127.0.0.0/8",)
    assert not first_settings(home)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError):
        first_settings(blocked / "home")


def test_a_file_is_written_only_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "x"
    put(file, "a", 0o640)
    before = file.stat()
    put(file, "a", 0o640)
    assert file.stat().st_ino == before.st_ino
    put(file, "b", 0o600)
    assert file.read_text() == "b"
    assert file.stat().st_mode & 0o777 == 0o600
