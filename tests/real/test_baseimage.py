"""The two images as they are made: what is in them, and what runs in them."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import HostUnfit
from binder_onprem.host import baseimage, imagecache, sources
from tests.real.engine import Engine, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
CONFINED = ("run", "--rm", "--interactive", "--network=none", "--cap-drop=all", "--userns=auto:size=65536")
SERVE = ("jupyter-lab", "--ip=0.0.0.0", "--no-browser", "--IdentityProvider.token=t")

KERNEL = """
import importlib.util
import pathlib

import jupyter_client
import jupyter_server
from jupyter_events import EventLogger

assert importlib.util.find_spec("rfc3987_syntax") is None
manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")
answers = []
said = client.execute_interactive("print(6 * 7)", timeout=30, output_hook=lambda message: answers.append(message["content"].get("text")))
assert said["content"]["status"] == "ok" and "42\\n" in answers, (said, answers)
manager.shutdown_kernel(now=True)
events, schemas = EventLogger(), list(pathlib.Path(jupyter_server.__file__).parent.glob("event_schemas/**/*.yaml"))
for schema in schemas:
    events.register_event_schema(schema)
assert schemas
print("kernel and schemas work")
"""

SERVER = """
import json, time, urllib.error, urllib.request

def ask(path, data=None):
    request = urllib.request.Request("http://127.0.0.1:8888" + path, data=data, headers={"Authorization": "token t"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read().decode()

for _ in range(500):
    try:
        if ask("/api/status")[0] == 200:
            break
    except OSError:
        time.sleep(0.02)
assert ask("/lab")[0] == 200 and ask("/tree")[0] == 200
config = json.loads(ask("/lab")[1].split('id="jupyter-config-data" type="application/json">')[1].split("</script>")[0])
assert config["extensionManager"]["can_install"] is False, config["extensionManager"]
assert config["news"]["disabled"] is True if "news" in config else True
assert "@jupyterlab/apputils-extension:announcements" in str(config["disabledExtensions"])
assert "python3" in json.loads(ask("/api/kernelspecs")[1])["kernelspecs"]
name = json.loads(ask("/api/terminals", b"{}")[1])["name"]
assert name in ask("/api/terminals")[1]
try:
    ask("/lsp/status")
except urllib.error.HTTPError as error:
    assert error.code == 404
print("server works")
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running() as engine:
        yield engine


@pytest.fixture(scope="module")
def made(engine: Engine) -> baseimage.Made:
    with pytest.raises(HostUnfit, match="up"):
        baseimage.made(engine.config)
    return baseimage.make(engine.config, sources.read(engine.config), lambda _: None)


def test_made_again_nothing_happens(engine: Engine, made: baseimage.Made) -> None:
    said: list[str] = []
    # Nor is another site's set-up waited for, which holds the cache for minutes.
    with imagecache.locked(imagecache.directory(), lambda _: None):
        assert baseimage.make(engine.config, sources.read(engine.config), said.append) == made
    assert said == []
    assert baseimage.made(engine.config) == made


def test_the_registry_has_this_very_image(engine: Engine, made: baseimage.Made) -> None:
    engine.podman("pull", "--quiet", "--creds=builder:secret", made.base)
    assert engine.podman("image", "inspect", "--format={{.Id}}", made.base) == made.base_id
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://{engine.config.registry_host}/v2/binder-base/tags/list", timeout=10)


def test_one_that_was_lost_is_published_again(engine: Engine, made: baseimage.Made, tmp_path: Path) -> None:
    held = engine.config.home / "registry" / "docker"
    held.rename(tmp_path / "docker")
    try:
        again = baseimage.make(engine.config, sources.read(engine.config), lambda _: None)
        assert again.base_id == made.base_id
        assert held.is_dir()
    finally:
        if not held.exists():
            (tmp_path / "docker").rename(held)


def test_kernel_and_event_schemas_work_without_network(engine: Engine, made: baseimage.Made) -> None:
    assert "kernel and schemas work" in engine.podman(*CONFINED, made.base_id, "python", "-", stdin=KERNEL)


def test_server_has_lab_notebook_and_terminal_and_calls_nobody(engine: Engine, made: baseimage.Made) -> None:
    engine.podman("run", "--detach", "--name=server", *CONFINED[3:], made.base_id, *SERVE)
    try:
        assert "server works" in engine.podman("exec", "--interactive", "server", "python", "-", stdin=SERVER), engine.podman("logs", "server")
        processes = engine.podman("exec", "server", "ps", "-eo", "user,args")
        assert "/bin/bash" in processes
        assert {line.split()[0] for line in processes.splitlines()[1:]} == {"jovyan"}
    finally:
        engine.end("server")


def test_a_server_starts_soon(engine: Engine, made: baseimage.Made) -> None:
    began = time.monotonic()
    engine.podman(
        "run", "--detach", "--name=soon", *CONFINED[3:], made.base_id, "jupyter-lab", "--ip=0.0.0.0", "--no-browser", "--IdentityProvider.token=t"
    )
    try:
        wait = "until curl -sf -H 'Authorization: token t' http://127.0.0.1:8888/api/status; do sleep 0.02; done"
        engine.podman("exec", "soon", "sh", "-c", wait)
        # The limit proper is the bench's; here only that nobody put whole seconds in. Other tests may run beside.
        assert time.monotonic() - began < 15
    finally:
        engine.end("soon")


def test_the_user_owns_home_and_environment(engine: Engine, made: baseimage.Made) -> None:
    script = """
        id -un; pwd; python -c 'import sys; print(sys.prefix)'; bash -lc 'command -v python'
        touch /srv/venv/lib/x /home/jovyan/x && pip --version >/dev/null && uv pip list -q >/dev/null && git lfs version >/dev/null
        find /srv/venv /home/jovyan ! -user jovyan; find / -xdev -perm /6000 -type f 2>/dev/null | wc -l; ls /run/secrets 2>/dev/null
    """
    said = engine.podman(*CONFINED, made.base_id, "sh", "-ec", script).splitlines()
    assert said[:4] == ["jovyan", "/home/jovyan", "/srv/venv", "/srv/venv/bin/python"]
    assert len(said) == 5, said


def test_it_is_small(engine: Engine, made: baseimage.Made) -> None:
    assert int(engine.podman("image", "inspect", "--format={{.Size}}", made.base_id)) < 950 * 1000**2  # 200 of them are the compilers


def test_mirrors_and_certificates_are_inside(engine: Engine, made: baseimage.Made) -> None:
    script = """
        cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null
        cat /etc/binder-onprem/npmrc; for v in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS CURL_CA_BUNDLE; do printenv $v; done
        python -c 'import ssl; print(len(ssl.create_default_context().get_ca_certs()))'
    """
    said = engine.podman(*CONFINED, made.base_id, "sh", "-c", script)
    found = sources.read(engine.config)
    assert found.apt.strip() in said
    assert said.count("/etc/ssl/certs/ca-certificates.crt") == 5
    assert int(said.splitlines()[-1]) >= found.ca_bundle.count(b"BEGIN CERT") // 2
    if found.npm:
        assert f"registry={found.npm}" in said


def test_packages_install_as_root_of_a_container(engine: Engine, made: baseimage.Made) -> None:
    run = ("run", "--rm", "--userns=auto:size=65536", "--user=0", made.base_id)
    said = engine.podman(
        *run, "sh", "-ec", "apt-get update -q && apt-get install -qy tree && tree --version && ls /usr/share/man /usr/share/doc/tree"
    )
    assert "tree v" in said
    assert "changelog" not in said


def test_packages_install_in_a_session_without_what_slows_the_start(engine: Engine, made: baseimage.Made) -> None:
    run = ("run", "--rm", "--userns=auto:size=65536", "--cap-drop=all", made.base_id)
    said = engine.podman(*run, "sh", "-ec", "pip install -q iniconfig && uv pip install 'jsonschema[format-nongpl]' && uv pip freeze")
    assert "iniconfig" in said
    assert "rfc3987" not in said


def test_start_script_of_a_repository_wraps_the_command(engine: Engine, made: baseimage.Made) -> None:
    script = """
        mkdir .binder
        printf '#!/bin/bash\\nexport A=b\\nexec "$@"\\n' > .binder/start
        session sh -c 'echo $A'
        chmod +x .binder/start
        session sh -c 'echo $A'
    """
    assert engine.podman(*CONFINED, made.base_id, "sh", "-ec", script) == "b\nb"
    assert engine.podman(*CONFINED, made.base_id, "echo", "plain") == "plain"


@pytest.mark.usefixtures("made")
def test_dockerfiles_find_it_by_name(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM binder-onprem/base\nRUN id -un > who\n")
    engine.podman("build", "--network=none", "--tag=localhost/derived", str(tmp_path))
    assert engine.podman(*CONFINED, "localhost/derived", "cat", "who") == "jovyan"


def test_sandbox_has_what_examines_repositories(engine: Engine, made: baseimage.Made) -> None:
    run = (*CONFINED, "--read-only", "--user=65534:65534", made.sandbox)
    said = engine.podman(
        *run,
        "sh",
        "-ec",
        "repo2docker --version; git --version; git lfs version; ssh -V; python -c 'import packaging, repo2docker.app'; pip --version",
    )
    assert "git-lfs" in said
    history = json.loads(engine.podman("image", "inspect", made.sandbox))[0]
    assert history["User"] == "jovyan"
