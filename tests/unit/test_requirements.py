"""Requirements files and Pipfiles as one text for uv."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import BuildFailed
from binder_onprem.sandbox import pipfile, requirements

if TYPE_CHECKING:
    from pathlib import Path


def read(root: Path, content: str | bytes) -> requirements.Requirements:
    (root / "requirements.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return requirements.read(root.resolve(), root / "requirements.txt")


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("numpy==1  # why\n\n  scipy ; python_version > '3'\n", ["numpy==1", "scipy ; python_version > '3'"]),
        ("a \\\n  --hash=sha256:1\n", ["a  --hash=sha256:1"]),
        ("\ufeffnumpy\r\nscipy\r\n".encode("utf-16"), ["\ufeffnumpy", "scipy"]),
        ("numpy\r\nscipy\r\n".encode("utf-16"), ["numpy", "scipy"]),
        ("numpy # caf\xe9".encode("latin-1"), ["numpy"]),
        ("-i https://mirror.example/simple\n--no-binary :all:\n", ["--index-url https://mirror.example/simple", "--no-binary :all:"]),
        ("--find-links=https://x.example/a\n", ["--find-links https://x.example/a"]),
        ("git+https://x.example/a.git#egg=a\n", ["git+https://x.example/a.git#egg=a"]),
        ("-e git+https://x.example/a.git@main#egg=a[b]\n", ["a[b] @ git+https://x.example/a.git@main"]),
        ("https://x.example/a-1-py3-none-any.whl\n", ["https://x.example/a-1-py3-none-any.whl"]),
    ],
)
def test_lines(tmp_path: Path, content: str | bytes, lines: list[str]) -> None:
    found = read(tmp_path, content)
    assert (found.lines, found.local) == (lines, [])


@pytest.mark.parametrize(
    "line", [".", "./pkg", "-e .", "--editable=./pkg", "-e./pkg", "pkg @ file:///home/jovyan/pkg", "wheels/a-1-py3-none-any.whl", "sub/pkg"]
)
def test_paths_wait_for_the_content(tmp_path: Path, line: str) -> None:
    (tmp_path / "sub" / "pkg").mkdir(parents=True)
    found = read(tmp_path, f"numpy\n{line}\n")
    assert found.lines == ["numpy"]
    assert len(found.local) == 1


def test_options_for_the_command_line(tmp_path: Path) -> None:
    found = read(tmp_path, "--pre\n--pre\n--extra-index-url https://x.example/simple\n--trusted-host x.example\n--prefer-binary\n--strange 1\n")
    assert found.arguments == ["--prerelease=allow", "--allow-insecure-host", "x.example", "--index-strategy", "unsafe-best-match"]
    assert found.notices == ["requirements.txt: the option --strange is ignored."]


def test_included_files_and_constraints(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("a\n-r b.txt\n-c c.txt\n")
    (tmp_path / "more" / "b.txt").write_text("b\n-r a.txt\n")
    (tmp_path / "more" / "c.txt").write_text("c<2\n")
    found = read(tmp_path, "-r more/a.txt\nz\n")
    assert (found.lines, found.constraints) == (["a", "b", "z"], ["c<2"])


@pytest.mark.parametrize("line", ['-r "of mine/a b.txt"', "-r 'of mine/a b.txt'", "--requirement=of mine/a b.txt"])
def test_names_with_blanks_may_be_quoted(tmp_path: Path, line: str) -> None:
    (tmp_path / "of mine").mkdir()
    (tmp_path / "of mine" / "a b.txt").write_text("a\n")
    assert read(tmp_path, f"{line}\n").lines == ["a"]


def test_a_chain_of_files_ends(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text(f"-r {number + 1}.txt\n")
    with pytest.raises(BuildFailed, match="more than 50 files"):
        read(tmp_path, "-r 0.txt\n")


def test_a_locked_pipfile(tmp_path: Path) -> None:
    lock = {
        "_meta": {
            "requires": {"python_version": "3.11"},
            "sources": [{"name": "pypi", "url": "https://a.example"}, {"name": "b", "url": "https://b.example"}],
        },
        "default": {
            "a": {"version": "==1", "hashes": ["sha256:1", "sha256:2"], "markers": "python_version > '3'"},
            "g": {"git": "https://g.example/g.git", "ref": "abc"},
            "me": {"path": ".", "editable": True},
        },
        "develop": {"b": {"version": "==2", "extras": ["x"]}},
    }
    (tmp_path / "Pipfile.lock").write_text(json.dumps(lock))
    found, python = pipfile.read(tmp_path, tmp_path)
    assert python == "3.11"
    assert found.lines == [
        "--extra-index-url https://b.example",
        "a==1 ; (python_version > '3') --hash=sha256:1 --hash=sha256:2",
        "g @ git+https://g.example/g.git@abc",
        "b[x]==2",
    ]
    assert found.local == ["-e ."]


def test_a_pipfile(tmp_path: Path) -> None:
    (tmp_path / "Pipfile").write_text('[packages]\na = "*"\nb = "<2"\nc = {version = ">1", sys_platform = "== \'linux\'"}\n[dev-packages]\nd = "*"\n')
    found, python = pipfile.read(tmp_path, tmp_path)
    assert python is None
    assert found.lines == ["a", "b<2", "c>1 ; sys_platform == 'linux'", "d"]


@pytest.mark.parametrize("name", ["-e", "a b", "a\n--index-url x", ""])
def test_a_pipfile_with_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "Pipfile.lock").write_text(json.dumps({"default": {name: {"version": "==1"}}}))
    with pytest.raises(BuildFailed, match="no valid name"):
        pipfile.read(tmp_path, tmp_path)


def test_values_of_a_pipfile_stay_on_their_line(tmp_path: Path) -> None:
    (tmp_path / "Pipfile.lock").write_text(json.dumps({"default": {"a": {"version": "==1\n--index-url https://evil.example"}}}))
    assert pipfile.read(tmp_path, tmp_path)[0].lines == ["a==1 --index-url https://evil.example"]
