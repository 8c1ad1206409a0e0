"""What is installed below a directory, whatever lies there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from binder_onprem.building.supply import bill
from binder_onprem.building.supply.bill import Part
from binder_onprem.sandbox import inventory

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: x
 Package: no

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def listed(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Part, ...]:
    assert inventory.main([str(root)]) == 0
    return bill.parts(capsys.readouterr().out.splitlines())


def test_each_kind_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    put(tmp_path, "var/lib/dpkg/status", STATUS)
    put(
        tmp_path,
        "srv/venv/lib/python3.11/site-packages/numpy-1.26.4.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n\nVersion: no",
    )
    put(tmp_path, "usr/lib/python3/dist-packages/old.egg-info", "Name: old\nVersion: 1\n")
    put(tmp_path, "usr/lib/python3/dist-packages/egg.egg-info/PKG-INFO", "Name: egg\nVersion: 2\n")
    put(tmp_path, "srv/conda/conda-meta/mamba-core-2.0-h1_0.json", "not read")
    put(tmp_path, "srv/conda/conda-meta/history", "")
    built = "Built: R 4.2.2; ; 2023-03-11 20:40:00 UTC; unix\n"
    put(tmp_path, "usr/lib/R/site-library/ggplot2/DESCRIPTION", f"Package: ggplot2\nVersion: 3.5\n{built}")
    put(tmp_path, "srv/rlibs/own/DESCRIPTION", f"Package: own\nVersion: 0.1\n{built}")
    put(tmp_path, "home/jovyan/source/DESCRIPTION", "Package: source\nVersion: 9\n")
    put(tmp_path, "home/jovyan/node_modules/site-packages/x.dist-info/METADATA", "Name: x\nVersion: 1\n")
    assert listed(tmp_path, capsys) == (
        Part("conda", "mamba-core", "2.0"),
        Part("cran", "ggplot2", "3.5"),
        Part("cran", "own", "0.1"),
        Part("deb", "libc6", "2.36-9", "amd64"),
        Part("os", "debian", "12"),
        Part("pypi", "egg", "2"),
        Part("pypi", "numpy", "1.26.4"),
        Part("pypi", "old", "1"),
    )


def test_hostile_files_are_not_followed_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "lib/site-packages"
    put(site, "big-1.dist-info/METADATA", "Name: big\nVersion: 1\n" + "x" * 2_000_000)
    put(site, "bad-1.dist-info/METADATA", "Name: <script>\nVersion: 1\n")
    put(site, "twice-1.dist-info/METADATA", "Name: twice\nVersion: 1\nName: other\n")
    put(site, "twice-2.dist-info/METADATA", "Name: twice\nVersion: 1\n")
    put(tmp_path, "secret", "Name: secret\nVersion: 1\n")
    for name, make in (("pipe", os.mkfifo), ("link", lambda path: path.symlink_to(tmp_path / "secret")), ("dir", Path.mkdir)):
        (site / f"{name}-1.dist-info").mkdir()
        make(site / f"{name}-1.dist-info/METADATA")
    (tmp_path / "lib/round").symlink_to(tmp_path)
    deep = tmp_path / "/".join(["d"] * 60)
    put(deep, "site-packages/deep-1.dist-info/METADATA", "Name: deep\nVersion: 1\n")
    assert [part.name for part in listed(tmp_path, capsys) if part.type == "pypi"] == ["big", "twice"]


def test_lines_that_are_no_parts_are_none() -> None:
    good = {"type": "pypi", "name": "x", "version": "1"}
    bad: list[dict[str, str]] = [{"type": "x"}, {"name": "a b"}, {"version": "1\n"}, {"arch": "../x"}]
    lines = ["", "[]", "{", "[" * 5000, "null", '"x"', *(json.dumps(good | more) for more in bad)]
    assert bill.parts(lines) == ()
    assert bill.parts([json.dumps(good)] * 3) == (Part("pypi", "x", "1"),)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"components": 1}', b'{"components": [1]}', b"[" * 5000])
def test_a_document_that_is_none_has_no_summary(content: bytes) -> None:
    assert bill.summary(content) == {}
