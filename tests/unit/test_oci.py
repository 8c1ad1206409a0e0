from __future__ import annotations

import json

import pytest

from binder_onprem.building.blobs import Blob
from binder_onprem.building.oci import Stack, digest, labels, plain
from binder_onprem.errors import RegistryUnavailable

GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFEST = {"layers": [{"mediaType": GZIP, "digest": "sha256:a", "size": 1}]}
CONFIG = {
    "architecture": "amd64",
    "config": {"Env": ["A=1", "B=x=y"], "Entrypoint": ["tini"], "Cmd": ["lab"], "Labels": {"evil": "1"}, "Volumes": {"/x": {}}},
    "rootfs": {"diff_ids": ["sha256:da"]},
    "history": [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": True}],
}
TOP = Blob("sha256:b", 2, "application/vnd.oci.image.layer.v1.tar+zstd", "sha256:db")


def stack() -> Stack:
    return Stack.of(MANIFEST, CONFIG)


def test_the_golden_image() -> None:
    made = stack().add(TOP, "content").configured((("B", "2"), ("C", "3")), ())
    configuration = made.configuration(0, {"io.x": "1"})
    assert json.loads(configuration) == {
        "created": "1970-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": "jovyan",
            "WorkingDir": "/home/jovyan",
            "Env": ["A=1", "B=2", "C=3"],
            "Entrypoint": ["tini"],
            "Cmd": ["lab"],
            "Labels": {"io.x": "1"},
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:da", "sha256:db"]},
        "history": [
            {"created": "1970-01-01T00:00:00Z", "created_by": "ADD"},
            {"created": "1970-01-01T00:00:00Z", "created_by": "content"},
        ],
    }
    assert json.loads(made.manifest(configuration)) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(configuration), "size": len(configuration)},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:a", "size": 1},
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": "sha256:b", "size": 2},
        ],
    }


def test_an_entry_point_of_the_plan_replaces_the_bases() -> None:
    assert stack().configured((), ("start",)).entrypoint == ("start",)


def test_what_is_written_can_be_read_again() -> None:
    made = stack().add(TOP, "content")
    configuration = made.configuration(0, {})
    assert Stack.of(json.loads(made.manifest(configuration)), json.loads(configuration)).layers == made.layers


@pytest.mark.parametrize("damage", [{"rootfs": {}}, {"rootfs": {"diff_ids": []}}, {"config": {"Env": [1]}}])
def test_what_is_no_image_is_the_registrys_fault(damage: dict[str, object]) -> None:
    with pytest.raises(RegistryUnavailable):
        Stack.of(MANIFEST, CONFIG | damage)


def test_only_what_starts_an_image_is_kept_of_a_repositorys_configuration() -> None:
    hostile = {
        **CONFIG,
        "container_config": {"Labels": {"x": "y"}},
        "config": {**CONFIG["config"], "User": "jovyan", "OnBuild": ["RUN x"], "Healthcheck": {"Test": ["x"]}, "StopSignal": "9"},  # type: ignore[dict-item]
    }
    made = json.loads(plain(hostile, labels("c" * 40, "Docker\nfile")))
    assert made["config"] == {
        "User": "jovyan",
        "Env": ["A=1", "B=x=y"],
        "Entrypoint": ["tini"],
        "Cmd": ["lab"],
        "Labels": {"org.opencontainers.image.revision": "c" * 40, "io.binder-onprem.buildpack": "Dockerfile"},
    }
    assert set(made) == {"architecture", "rootfs", "history", "config"}
