"""What a run of a playbook tells, as values; the verbs and their playbooks."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from binder_onprem import cli
from binder_onprem.deploy.story import Story, after
from binder_onprem.deploy.verbs import VERBS, playbooks
from binder_onprem.errors import ConfigError
from tests.unit.plugins import PLAYBOOKS

if TYPE_CHECKING:
    from pathlib import Path


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": data}


def told(*events: dict[str, Any]) -> Story:
    return reduce(after, events, Story())


BEGIN = (event("playbook_on_play_start", name="Registry"), event("playbook_on_task_start", task="Settings", role="registry"))


def test_a_host_is_where_its_last_task_is_and_its_results_are_counted() -> None:
    story = told(
        *BEGIN,
        event("runner_on_start", host="one"),
        event("runner_on_ok", host="one", res={"changed": True}),
        event("runner_on_ok", host="one", res={"changed": False}),
        event("runner_on_skipped", host="one", res={}),
    )
    host = story.hosts["one"]
    assert (host.role, host.task, host.ok, host.changed, host.skipped, host.failed) == ("registry", "Settings", 2, 1, 1, 0)
    assert story.changed == 1


def test_a_task_outside_a_role_goes_by_its_plays_name() -> None:
    assert told(BEGIN[0], event("playbook_on_task_start", task="Gathering Facts")).role == "Registry"


def test_a_failure_says_where_what_and_what_to_do_and_no_secret() -> None:
    story = told(*BEGIN, event("runner_on_failed", host="one", task="Settings", role="registry", res={"msg": "no room; password=hunter2 was given"}))
    (failure,) = story.failures
    assert (failure.host, failure.role, failure.task, failure.kind) == ("one", "registry", "Settings", "failed")
    assert "no room" in failure.message
    assert "hunter2" not in failure.message
    assert "run the same command again" in failure.fix


def test_a_host_that_does_not_answer_is_another_thing() -> None:
    (failure,) = told(*BEGIN, event("runner_on_unreachable", host="one", task="Settings", res={"msg": "timed out"})).failures
    assert failure.kind == "unreachable"
    assert "ssh" in failure.fix


def test_a_host_that_has_gone_on_the_way_is_asked_for_differently() -> None:
    (failure,) = told(*BEGIN, event("runner_on_ok", host="one", res={}), event("runner_on_unreachable", host="one", res={"msg": "closed"})).failures
    assert failure.fix.startswith("It answered until then")


@pytest.mark.parametrize("kind", ["runner_on_failed", "runner_on_unreachable"])
@pytest.mark.parametrize("said", ["[Errno 28] No space left on device: '/etc/x'", "Failed to create temporary directory. In some cases"])
def test_a_full_disk_is_called_one(kind: str, said: str) -> None:
    (failure,) = told(*BEGIN, event(kind, host="one", task="Settings", res={"msg": said})).failures
    assert "df -h" in failure.fix


def test_where_words_are_hidden_the_usual_causes_are_named() -> None:
    said = "the output has been hidden due to the fact that 'no_log: true' was specified for this result"
    (failure,) = told(*BEGIN, event("runner_on_failed", host="one", task="Accounts", res={"censored": said})).failures
    assert "df -h" in failure.fix


def test_of_a_loop_the_items_that_failed_are_told() -> None:
    items = [{"_ansible_item_label": "push", "failed": True, "msg": "died"}, {"_ansible_item_label": "pull", "failed": False, "msg": "fine"}]
    (failure,) = told(*BEGIN, event("runner_on_failed", host="one", task="Units", res={"msg": "One or more items failed", "results": items})).failures
    assert failure.message == "push: died"


def test_a_failure_that_is_ignored_is_none() -> None:
    story = told(*BEGIN, event("runner_on_failed", host="one", task="t", ignore_errors=True, res={"msg": "x"}))
    assert story.failures == ()
    assert story.hosts["one"].ok == 1


def test_findings_are_an_answer_of_their_host() -> None:
    rows = [{"level": "ok", "subject": "memory", "text": "8 GiB", "fix": ""}]
    story = told(*BEGIN, *(event("runner_on_ok", host=name, res={"ansible_facts": {"preflight_findings": rows}}) for name in ("one", "two")))
    assert story.answers == {"findings": {"one": rows, "two": rows}}


def test_each_verb_is_a_playbook_and_each_playbook_a_verb() -> None:
    assert {path.stem for path in PLAYBOOKS.glob("*.yml")} == set(VERBS)
    assert playbooks(None) == PLAYBOOKS


@pytest.mark.parametrize("role", sorted(path.name for path in (PLAYBOOKS / "roles").iterdir()))
def test_each_variable_of_a_role_has_its_prefix_and_its_description(role: str) -> None:
    place = PLAYBOOKS / "roles" / role
    options = yaml.safe_load((place / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    given = place / "defaults" / "main.yml"
    defaults = yaml.safe_load(given.read_text()) if given.exists() else {}
    assert set(options) == set(defaults)
    assert all(name.startswith(f"{role}_") and option["description"] for name, option in options.items())


def test_what_loops_through_accounts_of_caches_tells_no_results() -> None:
    tasks = yaml.safe_load((PLAYBOOKS / "roles" / "registry" / "tasks" / "main.yml").read_text())
    loops = [task for task in tasks if "registry_listeners" in str(task.get("loop", "")) or "registry_caches" in str(task.get("loop", ""))]
    assert loops
    assert all(task.get("no_log") for task in loops)


def test_without_playbooks_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="checkout"):
        playbooks(tmp_path)


def test_what_removes_things_asks_first(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {}\n")
    done = CliRunner().invoke(cli.main, ["deploy", "reset", "-i", str(inventory)], input="n\n")
    assert done.exit_code == 1
    assert "images and settings" in done.output


@pytest.mark.parametrize(("words", "code", "sentence"), [
    (["site"], 10, "no inventory"),
    (["site", "-e", "novalue"], 2, "NAME=VALUE"),
    (["sitee"], 2, "preflight"),
])  # fmt: skip
def test_a_command_line_that_cannot_work_is_answered_by_a_sentence(tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    done = CliRunner().invoke(cli.main, ["deploy", *words, "-i", str(tmp_path / "none")])
    assert done.exit_code == code
    assert sentence in done.output
