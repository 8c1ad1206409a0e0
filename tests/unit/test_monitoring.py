"""Alerts and dashboard speak of what there is, and the night's table of every alert."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client import REGISTRY

from binder_onprem import metrics
from tests.unit.plugins import PLAYBOOKS, plugin

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FILES = PLAYBOOKS / "roles" / "monitoring" / "files"
EXPORTERS = {"up", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def known(tmp_path: Path) -> set[str]:
    """Names that the daemon prints, and what canary and backup tell."""
    assert metrics.SESSIONS
    printed = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    printed |= {f"{family.name}{end}" for family in REGISTRY.collect() for end in ("", "_total", "_bucket") if family.name.startswith("binder")}
    told = tmp_path / "told.prom"
    plugin("roles/canary/files/canary.py").tell(told, worked=True, seconds=1.5, ends=[("registry", 1e9)])
    return printed | EXPORTERS | set(re.findall(r"^[a-z_]+", told.read_text(), re.MULTILINE)) | {"binder_backup_last_success_timestamp_seconds"}


def test_only_metrics_that_there_are_are_asked_for(tmp_path: Path) -> None:
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    asked = [str(rule["expr"]) for rule in rules()] + [target["expr"] for panel in panels for target in panel["targets"]]
    names = {name for text in asked for name in re.findall(r"\b(?:binder|binderhub|node)_[a-z_]+", text)}
    assert len(names) > 12
    assert names - known(tmp_path) == set()


def test_every_alert_says_what_to_do_and_stands_in_the_nights_table() -> None:
    table = (PLAYBOOKS.parent / "CLUSTER.md").read_text().partition("## At night")[2]
    assert len(rules()) >= 10
    for rule in rules():
        assert {"summary", "todo"} <= set(rule["annotations"]), rule
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert f"`{rule['alert']}`" in table, rule["alert"]


def test_prometheus_takes_the_rules_and_they_fire(tmp_path: Path) -> None:
    def series(text: str, values: str) -> dict[str, str]:
        return {"series": text, "values": values}

    def fires(name: str, when: str, labels: dict[str, str]) -> dict[str, Any]:
        annotations = next(rule["annotations"] for rule in rules() if rule["alert"] == name)
        severity = next(rule["labels"]["severity"] for rule in rules() if rule["alert"] == name)
        found = {key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match[1]], text) for key, text in annotations.items()}
        return {"eval_time": when, "alertname": name, "exp_alerts": [{"exp_labels": {**labels, "severity": severity}, "exp_annotations": found}]}

    canary = {"instance": "head:9100", "job": "binder-nodes"}
    disk = {**canary, "mountpoint": "/", "fstype": "ext4"}
    labels = "{" + ",".join(f'{key}="{value}"' for key, value in disk.items()) + "}"
    case = {
        "interval": "1m",
        "input_series": [
            series('up{job="binder",instance="head:8585"}', "1x9 0x60"),
            series('binder_canary_success{job="binder-nodes",instance="head:9100"}', "1x9 0x60"),
            series(f"node_filesystem_avail_bytes{labels}", "50x9 5x60"),
            series(f"node_filesystem_size_bytes{labels}", "100x70"),
        ],
        "alert_rule_test": [
            {"eval_time": "5m", "alertname": "BinderDown", "exp_alerts": []},
            fires("BinderDown", "20m", {"instance": "head:8585", "job": "binder"}),
            {"eval_time": "20m", "alertname": "BinderCanaryFails", "exp_alerts": []},
            fires("BinderCanaryFails", "40m", canary),
            fires("BinderDiskFull", "30m", disk),
        ],
    }
    file = tmp_path / "case.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(FILES / "alerts.yml")], "evaluation_interval": "1m", "tests": [case]}))
    for words in (("check", "rules", str(FILES / "alerts.yml")), ("test", "rules", str(file))):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_last_success_outlives_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary, file = plugin("roles/canary/files/canary.py"), tmp_path / "canary.prom"
    monkeypatch.setattr(canary.time, "time", lambda: 1000.0)
    canary.tell(file, worked=True, seconds=2, ends=[])
    monkeypatch.setattr(canary.time, "time", lambda: 2000.0)
    canary.tell(file, worked=False, seconds=3, ends=[])
    assert file.read_text().splitlines() == [
        "binder_canary_success 0",
        "binder_canary_seconds 3.000",
        "binder_canary_run_timestamp_seconds 2000",
        "binder_canary_last_success_timestamp_seconds 1000",
    ]
    canary.tell(tmp_path / "missing" / "x.prom", worked=True, seconds=1, ends=[])
    assert not (tmp_path / "missing").exists()
