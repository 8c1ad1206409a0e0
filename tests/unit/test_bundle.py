"""A bundle: what goes into it, what its bill tells, and that one which is damaged is refused by the name of the file."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from binder_onprem.host.recipe import PACKAGES
from tests.unit.plugins import PLAYBOOKS, answer, plugin

if TYPE_CHECKING:
    from pathlib import Path

bundle, debs, tarballs, wheels = (plugin(f"library/binder_{name}.py") for name in ("bundle", "debs", "tarballs", "wheels"))

SAID = """Inst libc6 (2.36-9+deb12u14 Debian:12.12/oldstable, Debian-Security:12/oldstable-security [amd64]) []
Inst e2fsprogs (1:1.47.0-2 Debian:12.12/oldstable [amd64])
Conf libc6 (2.36-9+deb12u14 Debian:12.12/oldstable [amd64])
"""
SHOWN = """Package: e2fsprogs
Version: 1:1.47.0-2
Filename: pool/main/e/e2fsprogs/e2fsprogs_1.47.0-2_amd64.deb
SHA256: 00

Package: other
Version: 1
Filename: pool/o

"""


@pytest.fixture
def parts(tmp_path: Path) -> list[dict[str, str]]:
    root = tmp_path / "debs"
    (root / "partial").mkdir(parents=True)
    for name in ("libc6_2.36-9_amd64.deb", "e2fsprogs_1%3a1.47_amd64.deb", "partial/half.deb"):
        (root / name).write_text(name)
    (tmp_path / "helm").write_text("helm")
    return [{"name": "deb-bookworm.tar", "src": str(root)}, {"name": "k3s/helm", "src": str(tmp_path / "helm")}]


def seal(capsys: pytest.CaptureFixture[str], dest: Path, parts: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    return answer(bundle, capsys, dest=str(dest), parts=parts, **more)


def test_a_bundle_is_sealed_once_and_is_whole(tmp_path: Path, parts: list[dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "bundle"
    assert seal(capsys, dest, parts, _ansible_check_mode=True)["changed"]
    assert not dest.exists()
    assert seal(capsys, dest, parts)["changed"]
    assert not seal(capsys, dest, parts)["changed"]
    told = answer(bundle, capsys, dest=str(dest), state="verified")
    assert set(told["sums"]) == {"bom.cdx.json", "deb-bookworm.tar", "k3s/helm"}
    with tarfile.open(dest / "deb-bookworm.tar") as tar:
        assert sorted(tar.getnames()) == ["e2fsprogs_1%3a1.47_amd64.deb", "libc6_2.36-9_amd64.deb"]
    listed = json.loads((dest / "bom.cdx.json").read_text())["components"]
    assert "pkg:deb/debian/e2fsprogs@1:1.47?distro=bookworm" in {part.get("purl") for part in listed}


@pytest.mark.parametrize("name", ["deb-bookworm.tar", "bom.cdx.json", "k3s/helm"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_file_is_named_and_made_again(
    name: str, tmp_path: Path, parts: list[dict[str, str]], capsys: pytest.CaptureFixture[str], *, gone: bool
) -> None:
    dest = tmp_path / "bundle"
    seal(capsys, dest, parts)
    if gone:
        (dest / name).unlink()
    else:
        (dest / name).write_bytes((dest / name).read_bytes()[:-1] + b"!")
    told = answer(bundle, capsys, dest=str(dest), state="verified")
    assert told["failed"]
    assert told["damaged"] == [name]
    assert f"damaged: {name}." in told["msg"]
    assert seal(capsys, dest, parts)["changed"]
    assert not answer(bundle, capsys, dest=str(dest), state="verified").get("failed")


@pytest.mark.parametrize("text", ["", "nonsense\n", f"{'0' * 64}  ../../etc/passwd\n", f"{'0' * 64}  /etc/passwd\n", f"{'0' * 63}  x\n"])
def test_checksums_that_are_none_make_no_bundle(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "SHA256SUMS").write_text(text)
    told = answer(bundle, capsys, dest=str(tmp_path), state="verified")
    assert told["failed"]
    assert "no whole bundle" in told["msg"]


def test_one_that_was_interrupted_is_none(tmp_path: Path, parts: list[dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "bundle"
    seal(capsys, dest, parts)
    (dest / "SHA256SUMS").unlink()
    (dest / "old.tar").write_text("of an earlier bundle")
    assert answer(bundle, capsys, dest=str(dest), state="verified")["failed"]
    assert seal(capsys, dest, parts)["changed"]
    assert not (dest / "old.tar").exists()


def test_what_apt_plans_and_shows_becomes_an_index() -> None:
    files = debs.planned(SAID)
    assert files == {"libc6=2.36-9+deb12u14": "libc6_2.36-9+deb12u14_amd64.deb", "e2fsprogs=1:1.47.0-2": "e2fsprogs_1%3a1.47.0-2_amd64.deb"}
    made = debs.index(SHOWN, files, "bookworm")
    assert (debs.upstream(files, "libc6"), debs.upstream(files, "e2fsprogs"), debs.upstream(files, "python3")) == ("2.36", "1.47.0", "")
    assert "Filename: ./e2fsprogs_1%3a1.47.0-2_amd64.deb\n" in made["Packages"]
    assert "Codename: bookworm\n" in made["Release"]
    assert "other" not in made["Packages"]
    assert f" {len(made['Packages'])} Packages" in made["Release"]


def test_packages_of_python_and_npm_stand_in_the_bill_under_their_own_names() -> None:
    told = bundle.components("npm.tar", {"@xterm/addon-fit-0.11.0.tgz": "0", "lodash-4.1.0.tgz": "1"})
    assert [about["purl"] for about in told] == ["pkg:npm/%40xterm/addon-fit@0.11.0", "pkg:npm/lodash@4.1.0"]
    (told,) = bundle.components("wheels-bookworm.tar", {"Jinja2_x-3.1-py3-none-any.whl": "0"})
    assert told["purl"] == "pkg:pypi/jinja2-x@3.1"


def test_what_was_built_of_sources_is_taken_by_the_lock_that_has_only_the_sources_hash(tmp_path: Path) -> None:
    source, other = "a" * 64, "b" * 64
    lock = f"first==1.0 \\\n    --hash=sha256:{source}\nsecond==2.0 \\\n    --hash=sha256:{other} \\\n    --hash=sha256:{'c' * 64}\n    # via first\n"
    found = wheels.entries(lock, "3.11.2", "x86_64")
    assert {name: wheels.hashes(text) for name, text in found.items()} == {"first": [source], "second": [other, "c" * 64]}
    (tmp_path / "first-1.0-py3-none-any.whl").write_text("built")
    (tmp_path / "built.sed").write_text(wheels.rule(found["first"], tmp_path / "first-1.0-py3-none-any.whl"))
    (tmp_path / "lock").write_text(lock)
    command = ["sed", "--sandbox", "-f", str(tmp_path / "built.sed"), str(tmp_path / "lock")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == lock.replace(source, f"{source} --hash=sha256:{hashlib.sha256(b'built').hexdigest()}")


def test_conditions_are_those_of_the_hosts_python_and_not_of_this_ones() -> None:
    lock = "a==1 ; python_full_version < '3.11.5' \\\n    --hash=sha256:00\na==2 ; python_full_version >= '3.11.5' \\\n    --hash=sha256:11\n"
    assert wheels.entries(lock, "3.11.2", "x86_64") == {"a": "a==1 \\\n    --hash=sha256:00"}
    assert wheels.entries(lock, "3.13.5", "x86_64") == {"a": "a==2 \\\n    --hash=sha256:11"}


def test_platforms_are_those_that_the_release_runs() -> None:
    assert wheels.tags(36, "amd64")[0] == "manylinux_2_36_x86_64"
    assert {"manylinux_2_5_x86_64", "manylinux1_x86_64"} <= set(wheels.tags(36, "amd64"))
    assert wheels.tags(36, "arm64")[-2:] == ["manylinux2014_aarch64", "linux_aarch64"]
    assert not any("manylinux_2_16" in tag for tag in wheels.tags(36, "arm64"))


def test_tarballs_are_what_running_needs_each_once() -> None:
    lock = json.loads((PLAYBOOKS.parent / "package-lock.json").read_text())
    named = tarballs.wanted(lock)
    assert any(name.startswith("@xterm/xterm-") for name in named)
    assert any(name.startswith("configurable-http-proxy-") for name in named)
    assert not any(name.startswith("oidc-provider-") for name in named)


def test_it_has_what_the_roles_ask_for() -> None:
    def variables(role: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((PLAYBOOKS / "roles" / role / "vars/main.yml").read_text())
        return found

    def tasks(role: str) -> list[str]:
        found = yaml.safe_load((PLAYBOOKS / "roles" / role / "tasks/main.yml").read_text())
        return [name for task in found if "binder_packages" in task for name in task["binder_packages"]["name"]]

    known = variables("bundle")["bundle_of"]
    assert known["trust"] == tasks("trust")
    assert known["registry"] == tasks("registry")
    assert known["postgresql"] == tasks("postgresql")
    assert known["podman"] == variables("podman")["podman_packages"]
    assert set(known["binder"]) == {*variables("binder")["binder_packages_needed"], *PACKAGES, "nginx-light", "openssl"}
