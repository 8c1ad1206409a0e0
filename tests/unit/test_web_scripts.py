"""The pure parts of the pages' scripts, by Node's own test runner."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from binder_onprem.config import Config
from tests.unit.webstand import displays

SCRIPTS = Path(__file__).parent / "web_scripts"


@pytest.mark.parametrize("name", ["ending", "links", "log", "redirect"])
def test_script(name: str) -> None:
    environment = os.environ | {"DISPLAYS": json.dumps(displays(Config())), "NODE_NO_WARNINGS": "1"}
    command = ["node", "--test", "--experimental-default-type=module", str(SCRIPTS / f"{name}.test.mjs")]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    assert "# pass 0" not in ran.stdout
