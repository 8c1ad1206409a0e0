"""What goes over the wire between this Binder and a machine that builds for it: one websocket for each build, JSON texts both ways.

The Binder opens it with an `Order`. The builder says lines of the log, asks what only the Binder knows or may do (`Question`), and ends with a
digest or an error. A closed connection, whoever closed it, is the end of the build there: nothing is ever built twice at once for long.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from binder_onprem import errors
from binder_onprem.credential import Credential
from binder_onprem.errors import BinderError, EngineUnavailable
from binder_onprem.model import BuildRecord, fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM: Final = "builders-1"
"""Changes when one side would not understand the other."""
HEARTBEAT: Final = 10.0
"""Seconds between two signs of life; after one and a half of these the other side counts as gone."""
BYTES: Final = 32 * 1024**2
"""Of one message: the list of all that is installed in an image is the largest."""
NONSENSE: Final = "The machine that builds says what nobody understands. It needs the release that this one has."


class Question(StrEnum):
    """What a builder asks of the Binder whose build it carries out."""

    PUSHING = "pushing"
    """The push starts; it waits until that is recorded."""
    USED = "used"
    """A layer of an environment is in use."""
    REPLACED = "replaced"
    """An image has taken another one's place."""
    CREDENTIAL = "credential"
    """What opens the private repository of this build."""
    ATTEST = "attest"
    """Have the image listed, looked at, signed: the keys stay where they are."""


@dataclass(frozen=True, slots=True)
class Made:
    """The images that a build stands on, as every machine can fetch them.

    Attributes:
        base: ``host:port/binder-base@sha256:…``.
        sandbox: ``host:port/binder-sandbox@sha256:…``.
        recipe: 64 hex digits over all that shapes images.
        code: 64 hex digits over our own code's part of that.
    """

    base: str
    sandbox: str
    recipe: str
    code: str


@dataclass(frozen=True, slots=True)
class Order:
    """One build that is ordered.

    Attributes:
        build: The record.
        made: What it is to stand on.
        listed: Whether to list what is installed in the image.
    """

    build: BuildRecord
    made: Made
    listed: bool


@dataclass(frozen=True, slots=True)
class State:
    """What a builder says of itself.

    Attributes:
        form: `FORM` of its release.
        code: As in `Made`.
        running: Ids of its builds.
        places: Builds that it takes at once.
    """

    form: str
    code: str
    running: tuple[str, ...]
    places: int


_ORDERS: Final = TypeAdapter(Order)
_STATES: Final = TypeAdapter(State)
_ERRORS: Final[dict[str, type[BinderError]]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BinderError)
}


def code(shape: tuple[str, ...]) -> str:
    """`Made.code` of what `recipe.shape` tells."""
    return fingerprint(FORM, *shape)


def order(value: Order) -> str:
    """As a text."""
    return _ORDERS.dump_json(value).decode()


def read_order(text: str) -> Order:
    """From the text. Raises `EngineUnavailable`."""
    try:
        return _ORDERS.validate_json(text)
    except ValidationError:
        raise EngineUnavailable(NONSENSE) from None


def state(value: State) -> str:
    """As a text."""
    return _STATES.dump_json(value).decode()


def read_state(text: bytes) -> State:
    """From the text. Raises `EngineUnavailable`."""
    try:
        return _STATES.validate_json(text)
    except ValidationError:
        raise EngineUnavailable(NONSENSE) from None


def message(text: str) -> dict[str, Any]:
    """One message. Raises `EngineUnavailable`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise EngineUnavailable(NONSENSE) from None
    if not isinstance(found, dict):
        raise EngineUnavailable(NONSENSE)
    return found


def failure(error: Exception) -> dict[str, Any]:
    """An error as JSON can hold it; of one that is not of our tree nothing but that."""
    if not isinstance(error, BinderError):
        return {"kind": "", "message": "", "retry_after": None}
    return {"kind": type(error).__name__, "message": error.message, "retry_after": error.retry_after}


def raised(value: Mapping[str, Any]) -> BinderError | None:
    """The error of the tree that `failure` wrote down; None where it was none of it."""
    kind, text, after = _ERRORS.get(str(value.get("kind"))), value.get("message"), value.get("retry_after")
    if kind is None or not isinstance(text, str):
        return None
    return kind(text[:1000], retry_after=float(after) if isinstance(after, int | float) else None)


def credential(value: Credential | None) -> dict[str, Any] | None:
    """What a clone needs of one."""
    return {name: asdict(value)[name] for name in ("id", "origin", "username", "secret")} if value else None


def read_credential(value: Mapping[str, Any] | None) -> Credential | None:
    """From what `credential` wrote down. Raises `EngineUnavailable`."""
    try:
        return Credential(**value) if value else None
    except TypeError:
        raise EngineUnavailable(NONSENSE) from None
