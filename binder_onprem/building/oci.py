"""An image's manifest and configuration as values: what lies below, what is put on top.

Pure. Used by `builder`. Of the image below only what we chose is carried on: environment, entry point, history; no label of a repository's making.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.building.blobs import MANIFEST, Blob
from binder_onprem.errors import RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
KEPT: Final = ("User", "WorkingDir", "Env", "Entrypoint", "Cmd")
LAYER_TYPES: Final = {
    # Docker's names in an OCI manifest would make it neither.
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
}


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers so far, and what a container of them would be started with.

    Attributes:
        layers: Bottom first, each with its `diff_id`.
        env: Environment.
        entrypoint: Argument list, may be empty.
        command: Argument list, may be empty.
        architecture: ``amd64``.
        history: Who made each layer.
    """

    layers: tuple[Blob, ...]
    env: tuple[tuple[str, str], ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    architecture: str
    history: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Mapping[str, Any], configuration: Mapping[str, Any]) -> Stack:
        """From what the registry has.

        Raises:
            RegistryUnavailable: It is not an image.
        """
        try:
            diff_ids = configuration["rootfs"]["diff_ids"]
            layers = tuple(_layer(layer, diff_id) for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True))
            config = configuration.get("config") or {}
            env = tuple((name, value) for name, _, value in (line.partition("=") for line in config.get("Env") or ()))
            made = tuple(entry.get("created_by", "") for entry in configuration.get("history") or () if not entry.get("empty_layer"))
            history = made if len(made) == len(layers) else ("",) * len(layers)
            words = tuple(config.get("Entrypoint") or ()), tuple(config.get("Cmd") or ())
            return cls(layers, env, *words, str(configuration["architecture"]), history)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RegistryUnavailable("An image in the registry is damaged. The administrator should remove it and run the set-up again.") from error

    def add(self, layer: Blob, name: str) -> Stack:
        """With one more layer on top."""
        return replace(self, layers=(*self.layers, layer), history=(*self.history, name))

    def configured(self, env: tuple[tuple[str, str], ...], entrypoint: tuple[str, ...]) -> Stack:
        """With these variables over its own, and with this entry point unless it is empty."""
        return replace(self, env=tuple({**dict(self.env), **dict(env)}.items()), entrypoint=entrypoint or self.entrypoint)

    def configuration(self, created: float, labels: Mapping[str, str]) -> bytes:
        """The configuration blob.

        Args:
            created: Unix seconds, UTC.
            labels: Ours.
        """
        when = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = {
            "User": "jovyan",
            "WorkingDir": "/home/jovyan",
            "Env": [f"{name}={value}" for name, value in self.env],
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "Labels": dict(labels),
        }
        document = {
            "created": when,
            "architecture": self.architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": [{"created": when, "created_by": name} for name in self.history],
        }
        return _json(document)

    def manifest(self, configuration: bytes) -> bytes:
        """The manifest that goes with that configuration."""
        config = {"mediaType": CONFIG_TYPE, "digest": digest(configuration), "size": len(configuration)}
        layers = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in self.layers]
        return _json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})


def labels(commit: str, buildpack: str) -> dict[str, str]:
    """What every image of ours says of itself: the commit, and the way it was built (text of the sandbox, so cut and plain)."""
    way = "".join(filter(str.isprintable, buildpack))[:80]
    return {"org.opencontainers.image.revision": commit, "io.binder-onprem.buildpack": way}


def plain(configuration: Mapping[str, Any], own: Mapping[str, str]) -> bytes:
    """A configuration of a repository's making with what starts it, our own labels, and nothing else: no volumes, ports, triggers, health checks."""
    config = configuration.get("config") or {}
    kept = {name: config[name] for name in KEPT if config.get(name)}
    kept["Labels"] = dict(own)
    top = {name: configuration[name] for name in ("created", "architecture", "os", "rootfs", "history") if name in configuration}
    return _json({**top, "config": kept})


def digest(content: bytes) -> str:
    """``sha256:…``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _layer(layer: Mapping[str, Any], diff_id: str) -> Blob:
    media_type = str(layer["mediaType"])
    return Blob(str(layer["digest"]), int(layer["size"]), LAYER_TYPES.get(media_type, media_type), str(diff_id))


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
