"""Cosign's "simple signing": what is signed of an image, and whether what came with it is that. Pure but for the keys' files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from binder_onprem.building.supply.attached import Attached

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binder_onprem.building.supply.keys import Keys

ANNOTATION: Final = "dev.cosignproject.cosign/signature"
TYPE: Final = "cosign container image signature"


def payload(repository: str, digest: str, said: Mapping[str, str]) -> bytes:
    """What is signed.

    Args:
        repository: ``host:port/prefix/name``.
        digest: Of the manifest.
        said: Further statements, signed with it.
    """
    critical = {"identity": {"docker-reference": repository}, "image": {"docker-manifest-digest": digest}, "type": TYPE}
    return json.dumps({"critical": critical, "optional": dict(said) or None}, separators=(",", ":")).encode()


def signed(keys: Keys, repository: str, digest: str, said: Mapping[str, str]) -> Attached:
    """A signature, ready to be attached. Raises `HostUnfit`."""
    content = payload(repository, digest, said)
    return Attached(content, {ANNOTATION: keys.sign(content)})


def statement(keys: Keys, digest: str, found: Sequence[Attached]) -> dict[str, str] | None:
    """What a good signature of this image says further; None when there is none among those found. Raises `HostUnfit`."""
    for one in found:
        said = _about(one.content, digest)
        if said is not None and keys.good(one.content, str(one.annotations.get(ANNOTATION, ""))):
            return said
    return None


def _about(content: bytes, digest: str) -> dict[str, str] | None:
    """The further statements of a payload that is about this image, None when it is about another or is none."""
    try:
        data = json.loads(content)
        same = data["critical"]["type"] == TYPE and data["critical"]["image"]["docker-manifest-digest"] == digest
        return {str(key): str(value) for key, value in (data.get("optional") or {}).items()} if same else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
