#!/usr/bin/python
"""A Helm chart's release is what chart and values say; where it is, nothing is done, which helm itself would count as a revision."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.basic import AnsibleModule


class Helm:
    """The program, on one cluster."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.asked = module.params

    def run(self, *words: str, fine: bool = False) -> str:
        """What it prints; "" where it fails and that is fine."""
        env = {**os.environ, "KUBECONFIG": self.asked["kubeconfig"], "HELM_NAMESPACE": self.asked["namespace"]}
        try:
            done = subprocess.run((self.asked["helm"], *words), capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL)
        except OSError as error:
            self.module.fail_json(msg=f"helm cannot be run on the controller ({error}). Install helm 3 there, or name it in namespace_helm.")
        if done.returncode and not fine:
            self.module.fail_json(msg=f"helm {words[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout if done.returncode == 0 else ""


def first(status: str) -> tuple[str, ...]:
    """What has to be done before helm takes an upgrade: one that was killed at work has left its lock, which is the release's status."""
    if status in ("pending-install", "uninstalling"):
        return ("uninstall",)
    return ("rollback",) if status.startswith("pending-") else ()


def objects(text: str) -> list[Any]:
    """The objects of a manifest, in an order of their own."""
    found = [one for one in yaml.safe_load_all(text) if one]
    return sorted(found, key=lambda one: json.dumps(one, sort_keys=True))


def main() -> None:
    """Compare, install or upgrade."""
    spec = {
        "helm": {"type": "str", "default": "helm"},
        "kubeconfig": {"type": "path", "required": True},
        "chart": {"type": "path", "required": True},
        "release": {"type": "str", "required": True},
        "namespace": {"type": "str", "required": True},
        "values": {"type": "dict", "required": True, "no_log": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    asked = module.params
    if module.check_mode and not Path(asked["kubeconfig"]).exists():
        module.exit_json(changed=True, why="there is no cluster yet")
    helm = Helm(module)
    # Values have an account in them: a file of this user alone, not the command line.
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as values:
        json.dump(asked["values"], values)
        values.flush()
        named = (asked["release"], asked["chart"], "--values", values.name)
        # By the cluster's own version and kinds, which `template` would guess.
        wanted = helm.run("template", "--validate", "--is-upgrade", *named)
        told = helm.run("status", asked["release"], "--output", "json", fine=True)
        status = str(json.loads(told)["info"]["status"]) if told else ""
        here = helm.run("get", "manifest", asked["release"], fine=True)
        changed = status != "deployed" or objects(wanted) != objects(here)
        if changed and not module.check_mode:
            for verb in first(status):
                helm.run(verb, asked["release"], "--wait", "--timeout", "5m")
            helm.run("upgrade", "--install", "--create-namespace", "--wait", "--timeout", "5m", *named)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
