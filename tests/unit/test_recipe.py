"""The recipe's digests move when an image could change, and only then; accounts of mirrors stay out of images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from binder_onprem.config import Build, Config, DistributionBase, Mirrors
from binder_onprem.host import recipe as recipe_module
from binder_onprem.host.recipe import Recipe, recipe, shaping_files, without_account
from binder_onprem.host.sources import Sources

APT = "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/none.gpg\n"
SOURCES = Sources(
    ca_bundle=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    pypi="https://index.example/simple",
    apt=APT,
    npm="https://npm.example/",
    conda="https://conda.example",
    cran="https://cran.example",
    proxy=None,
    no_proxy=(),
    hosts=frozenset(),
)


def made(sources: Sources = SOURCES, image: str = "", **base: Any) -> Recipe:
    config = Config(build=Build(base=DistributionBase(**{"suite": "bookworm", **base})), mirrors=Mirrors())
    return recipe(config, sources, image)


def test_the_same_gives_the_same() -> None:
    assert made() == made()


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"ca_bundle": b"other"}, {"root", "session", "sandbox", "digest"}),
        ({"apt": APT.replace("mirror.example", "other.example")}, {"root", "session", "sandbox", "digest"}),
        ({"pypi": "https://other.example/simple"}, {"session", "sandbox", "digest"}),
        ({"npm": None}, {"session", "sandbox", "digest"}),
        ({"proxy": "http://proxy.example:3128"}, set()),
        ({"hosts": frozenset({("x", 1)})}, set()),
    ],
)
def test_sources_move_what_they_shape(change: dict[str, Any], moved: set[str]) -> None:
    before, after = made(), made(replace(SOURCES, **change))
    assert {name for name in ("root", "session", "sandbox", "digest") if getattr(before, name) != getattr(after, name)} == moved


@pytest.mark.parametrize(
    ("base", "moved"),
    [
        ({"suite": "trixie"}, {"root", "session", "sandbox", "digest"}),
        ({"packages": ("vim",)}, {"root", "session", "sandbox", "digest"}),
        ({"packages": ("git",)}, set()),
        ({"python_packages": ("nbgitpuller",)}, {"session", "digest"}),
    ],
)
def test_configuration_moves_what_it_shapes(base: dict[str, Any], moved: set[str]) -> None:
    before, after = made(), made(**base)
    assert {name for name in ("root", "session", "sandbox", "digest") if getattr(before, name) != getattr(after, name)} == moved


def test_mercurial_is_in_the_sandbox_where_it_is_enabled_and_nowhere_else() -> None:
    before = made()
    after = recipe(
        Config.model_validate({"build": {"base": {"kind": "distribution", "suite": "bookworm"}}, "providers": [{"kind": "mercurial"}]}), SOURCES
    )
    assert (before.further, after.further) == ((), ("mercurial",))
    assert {name for name in ("root", "session", "sandbox", "digest") if getattr(before, name) != getattr(after, name)} == {"sandbox", "digest"}


def test_our_code_moves_names_of_images_but_makes_no_image_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    shutil.copytree(Path(recipe_module.__file__).parents[1], package)
    monkeypatch.setattr(recipe_module, "_PACKAGE", package)
    before = made()
    (package / "reaper.py").write_text("# nothing to do with images\n")
    assert made() == before
    (package / "sandbox" / "buildpack.py").write_text((package / "sandbox" / "buildpack.py").read_text() + "# changed\n")
    after = made()
    assert after.digest != before.digest
    assert (after.root, after.session, after.sandbox) == (before.root, before.session, before.sandbox)


def test_what_shapes_an_image_is_what_examines_and_what_makes_layers() -> None:
    assert {"examine.py", "buildpack.py", "plan.py", "layers.py"} <= {file.name for file in shaping_files()}
    assert not {"config.py", "recipe.py", "containers.py"} & {file.name for file in shaping_files()}


def test_accounts_stay_out_of_the_files_and_are_told() -> None:
    sources = replace(SOURCES, pypi="https://me:hunter2@index.example/simple", apt=APT.replace("://", "://me:hunter2@"))
    found = made(sources)
    assert not [path for path, data in found.files.items() if b"hunter2" in data]
    assert b"me:hunter2@index.example" in found.secret
    assert "hunter2" in found.apt
    assert [notice for notice in found.notices if "pypi, apt" in notice and "hunter2" not in notice]
    assert found.digest != made().digest


def test_nothing_is_told_without_accounts() -> None:
    assert made().notices == ()
    assert without_account("deb http://a.example/ x main # mail@example") == ("deb http://a.example/ x main # mail@example", False)


def test_mirrors_are_in_the_files() -> None:
    files = made().files
    assert files["site/pip.conf"] == b"[global]\nindex-url = https://index.example/simple\n"
    assert b'url = "https://index.example/simple"' in files["site/uv.toml"]
    assert files["site/npmrc"] == b"registry=https://npm.example/\n"
    assert b"https://conda.example" in files["site/condarc"]
    assert b"https://cran.example" in files["site/Rprofile.site"]
    assert files["site/sources"] == APT.encode()
    assert files["site/sources.name"] == b"sources.list.d/site.sources"
    plain = made(replace(SOURCES, pypi="http://index.example:8080/simple", apt="deb http://mirror.example/debian bookworm main\n")).files
    assert b"trusted-host = index.example\n" in plain["site/pip.conf"]
    assert plain["site/sources.name"] == b"sources.list"


def test_an_image_of_the_sites_keeps_its_own_apt_sources() -> None:
    found = made(image="sha256:1")
    assert found.files["site/sources"] == b""
    assert found.root != made(image="sha256:2").root


def test_keyrings_that_exist_come_along(tmp_path: Path) -> None:
    (tmp_path / "a.gpg").write_bytes(b"")
    assert made(replace(SOURCES, apt=f"deb [signed-by={tmp_path}/a.gpg] http://mirror.example x main\n")).keyrings == (tmp_path / "a.gpg",)
    assert made(replace(SOURCES, apt=f"Types: deb\nSigned-By: {tmp_path}/b.gpg {tmp_path}/a.gpg\n")).keyrings == ()


def test_locks_have_hashes_and_no_host() -> None:
    for name, data in made().files.items():
        if name.endswith(".lock"):
            assert b"http://" not in data
            assert b"https://" not in data
            assert data.count(b"==") <= data.count(b"--hash=")
            assert b"\nrfc3987-syntax==" not in data
