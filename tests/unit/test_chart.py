"""The chart's values: the defaults but one hold, and what could not work or would open the namespace is refused before helm asks the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.plugins import plugin

CHART = Path(__file__).parents[2] / "playbooks" / "roles" / "namespace" / "files" / "chart"
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def check(**values: Any) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES | values, SCHEMA, jsonschema.Draft7Validator)


def test_the_defaults_hold_once_somebody_may_reach_sessions() -> None:
    check(control=["10.1.2.3/32", "fd00::1/128"])
    with pytest.raises(jsonschema.ValidationError):
        check()


@pytest.mark.parametrize(
    "values",
    [
        {"control": ["10.1.2.3"]},
        {"control": ["control.uni.example"]},
        {"egress": {"allow": ["10.0.0.0/8"]}},
        {"egress": {"allow": [{"cidr": "10.0.0.0/8", "ports": [0]}]}},
        {"egress": {"private": []} | {"own": ["fd00::/8"]}},
        {"quota": {"pods": "many"}},
        {"quota": {"secrets.of.others": "1"}},
        {"prepull": {"images": ["debian:12"]}},
        {"pull": {"registry": "https://registry.uni.example"}},
        {"priorityClasses": [{"name": "x", "value": 2_000_000_000}]},
        {"privileged": True},
    ],
)
def test_what_could_not_work_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(**{"control": ["10.1.2.3/32"]} | values)


def test_every_value_is_in_the_schema_and_every_private_range_is_left_out() -> None:
    assert SCHEMA["properties"].keys() - {"global"} == VALUES.keys()
    assert SCHEMA["additionalProperties"] is False
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"} <= set(VALUES["egress"]["private"])


@pytest.mark.parametrize(
    ("status", "verbs"),
    [
        ("", ()),
        ("deployed", ()),
        ("failed", ()),
        ("superseded", ()),
        ("pending-install", ("uninstall",)),
        ("uninstalling", ("uninstall",)),
        ("pending-upgrade", ("rollback",)),
        ("pending-rollback", ("rollback",)),
    ],
)
def test_what_a_killed_helm_has_left_is_cleared_before_the_next(status: str, verbs: tuple[str, ...]) -> None:
    assert plugin("library/binder_chart.py").first(status) == verbs
