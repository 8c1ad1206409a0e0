from __future__ import annotations

import pytest

from binder_onprem.errors import BuildCancelled, BuildFailed, BuildInterrupted, BuildTimeout, LimitHit
from binder_onprem.events import Phase
from binder_onprem.model import BuildState
from binder_onprem.outcome import cancelled, failure, verdict
from tests.unit.parts import record


@pytest.mark.parametrize("kind", [BuildFailed, BuildCancelled, BuildInterrupted, BuildTimeout, LimitHit])
def test_an_error_goes_into_a_record_and_comes_back(kind: type[BuildFailed]) -> None:
    found = failure(record(state=BuildState.FAILED, error=kind.code, message="Why."))
    assert type(found) is kind
    assert found.message == "Why."


def test_a_record_of_another_version() -> None:
    assert type(failure(record(state=BuildState.FAILED, error="unheard of"))) is BuildFailed


def test_the_last_line() -> None:
    assert verdict(record(state=BuildState.BUILT)) == (Phase.BUILT, "The image is built.\n")
    assert verdict(record(state=BuildState.FAILED, message="Why.")) == (Phase.FAILED, "Why.\n")
    assert verdict(record(state=BuildState.CANCELLED)) == (Phase.FAILED, "The build failed.\n")


def test_cancelled_by_somebody_with_a_long_name() -> None:
    assert len(cancelled("x" * 1000).message) < 200
