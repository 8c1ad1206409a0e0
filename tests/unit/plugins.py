"""The playbooks' own modules and filters, which Ansible finds by their place and not by import."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args

if TYPE_CHECKING:
    from types import ModuleType

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"


def plugin(path: str) -> ModuleType:
    """The one at a path below ``playbooks``."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, PLAYBOOKS / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(module: ModuleType, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    """What one of Ansible's modules answers to a task's arguments."""
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told
