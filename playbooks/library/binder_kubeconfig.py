#!/usr/bin/python
"""The kubeconfig of a ServiceAccount, from the Secret with its token; read on the controller with the administrator's.

What a task under ``no_log`` says of its failure is hidden, too: with ``told: false`` the token is waited for and not told.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SECONDS = 30
"""Until the cluster has put the token into the Secret."""


def secret(module: AnsibleModule) -> dict[str, str]:
    """Contents of the Secret, once its token is there."""
    from kubernetes import client, config  # noqa: PLC0415 - in check mode there may be neither

    asked = module.params
    config.load_kube_config(asked["admin"])
    end = time.monotonic() + SECONDS
    while True:
        found = client.CoreV1Api().read_namespaced_secret(f"{asked['account']}-token", asked["namespace"], _request_timeout=10)
        if found.data and "token" in found.data:
            return {name: base64.b64decode(value).decode() for name, value in found.data.items()}
        if time.monotonic() > end:
            module.fail_json(
                msg=f"The Secret {asked['account']}-token in {asked['namespace']} gets no token. Is the cluster's controller manager running?"
            )
        time.sleep(0.5)


def kubeconfig(asked: dict[str, Any], server: str, found: dict[str, str]) -> str:
    """The file's text: JSON, which is YAML."""
    name = asked["account"]
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(found["ca.crt"].encode()).decode()}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": found["token"]}}],
            "contexts": [{"name": name, "context": {"cluster": "cluster", "user": name, "namespace": asked["namespace"]}}],
            "current-context": name,
        },
        indent=1,
    )


def main() -> None:
    """Answer with the text."""
    spec = {
        "admin": {"type": "path", "required": True},
        "namespace": {"type": "str", "required": True},
        "account": {"type": "str", "required": True},
        "server": {"type": "str", "default": ""},
        "told": {"type": "bool", "default": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    asked = module.params
    if module.check_mode and not Path(asked["admin"]).exists():
        module.exit_json(changed=False, text="")
    try:
        found = secret(module)
    except Exception as error:  # noqa: BLE001 - urllib3's, the client's and those of files
        if module.check_mode:
            # A site that was cut off has a cluster and not yet what is asked for in it.
            module.exit_json(changed=False, text="")
        why = (str(error).splitlines() or [type(error).__name__])[0][:300]
        module.fail_json(
            msg=f"The account {asked['account']} cannot be read with {asked['admin']}: {why}. Does that kubeconfig work on the controller (kubectl "
            f"--kubeconfig {asked['admin']} get secrets -n {asked['namespace']})?"
        )
    if not asked["told"]:
        module.exit_json(changed=False)
    from kubernetes.client import Configuration  # noqa: PLC0415 - `secret` has read the administrator's into it

    module.exit_json(changed=False, text=kubeconfig(asked, asked["server"] or Configuration.get_default_copy().host, found))


if __name__ == "__main__":
    main()
