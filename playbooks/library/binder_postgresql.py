#!/usr/bin/python
"""A cluster of the distribution's PostgreSQL that is ours alone, with one account and one database in it. Standard library and Debian's tools.

Ours is a cluster of its own: one that was there before keeps its settings, port and data, and `absent` drops no other. Passwords are handed on as
SCRAM verifiers, so that no statement, log or list of processes has one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

RECORD = Path("/var/lib/binder-deploy/postgresql.json")
"""Clusters that this module has made."""
CLUSTERS = Path("/etc/postgresql")
PROGRAMS = Path("/usr/lib/postgresql")
ROUNDS = 4096
NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
"""Of clusters, accounts and databases: what needs no quoting anywhere."""


def recorded() -> list[str]:
    """Names of the clusters that are ours."""
    return list(json.loads(RECORD.read_text(encoding="utf-8"))) if RECORD.exists() else []


def record(names: list[str]) -> None:
    """Write the record; a power cut leaves the old or the new one."""
    RECORD.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = RECORD.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(json.dumps(names))
        file.flush()
        os.fsync(file.fileno())
    new.replace(RECORD)


def versions(pattern: str, place: Path) -> list[str]:
    """Major versions below a directory that have what the pattern says, the oldest first."""
    return sorted((path.relative_to(place).parts[0] for path in place.glob(pattern)), key=lambda text: [int(part) for part in text.split(".")])


def run(module: AnsibleModule, *command: str, given: str | None = None) -> str:
    """Run a program; what it said is the failure's message."""
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=env, input=given or "")
    if done.returncode:
        module.fail_json(msg=f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout.strip()


class Server:
    """A cluster that runs, spoken to as its superuser by its socket."""

    def __init__(self, module: AnsibleModule, version: str) -> None:
        self.module = module
        self.version = version
        self.at = f"--cluster={version}/{module.params['cluster']}"

    def said(self, statement: str, database: str = "postgres") -> str:
        """What a statement answers; it comes by standard input."""
        quiet = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
        return run(self.module, "runuser", "-u", "postgres", "--", "psql", self.at, *quiet, f"--dbname={database}", given=statement)

    def restored(self, dump: Path, name: str) -> None:
        """Put a dump's contents into a database of its account's, all or nothing."""
        command = ("runuser", "-u", "postgres", "--", "pg_restore", self.at, "--no-owner", "--no-privileges", f"--role={name}")
        with dump.open("rb") as file:
            whole = ("--single-transaction", "--exit-on-error", f"--dbname={name}")
            done = subprocess.run((*command, *whole), stdin=file, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            self.module.fail_json(msg=f"pg_restore failed, and {dump} is still there: {done.stderr.strip()[-1500:]}")


def verifier(password: str, salt: bytes, rounds: int = ROUNDS) -> str:
    """What PostgreSQL keeps of a password (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${rounds}:{salt_text}${stored_text}:{server_text}"


def matches(password: str, kept: str) -> bool:
    """Whether what PostgreSQL keeps is of this password."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$.+", kept)
    return bool(found) and hmac.compare_digest(kept, verifier(password, base64.b64decode(found[2]), int(found[1])))


def cluster(module: AnsibleModule) -> None:
    """Make the cluster where it is missing; answers with its version, "" where there is none in check mode."""
    name = module.params["cluster"]
    there, programs = versions(f"*/{name}/postgresql.conf", CLUSTERS), versions("*/bin/postgres", PROGRAMS)
    if there and name not in recorded():
        module.fail_json(msg=f"This host has a cluster {there[-1]}/{name} already that is not ours. Choose another name: postgresql_cluster.")
    if there and there[-1] not in programs:
        module.fail_json(msg=f"The programs of cluster {there[-1]}/{name} are gone. Install postgresql-{there[-1]}, then run pg_upgradecluster.")
    if there or module.check_mode:
        module.exit_json(changed=not there, version=there[-1] if there else "")
    record(sorted({*recorded(), name}))
    options = ("--encoding=UTF8", "--locale=C.UTF-8", "--start-conf=auto", f"--port={module.params['port']}")
    run(module, "pg_createcluster", *options, programs[-1], name, "--", "--data-checksums")
    module.exit_json(changed=True, version=programs[-1])


def account(module: AnsibleModule) -> None:
    """The account, its password and its database; files that the server has not read yet are read."""
    name, password, version = module.params["name"], module.params["password"], module.params["version"]
    if not version:
        module.exit_json(changed=True, did=["all"])
    server = Server(module, version)
    kept = server.said(f"SELECT coalesce(rolpassword, 'none') FROM pg_authid WHERE rolname = '{name}'")  # noqa: S608 - a `NAME`
    did = []
    if not matches(password, kept):
        did.append("account")
        if not module.check_mode:
            what = "ALTER" if kept else "CREATE"
            server.said(f"{what} ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{verifier(password, secrets.token_bytes(16))}'")
    dump = Path(module.params["dump"] or "/nonexistent")
    missing = not server.said(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")  # noqa: S608 - a `NAME`
    if missing or dump.exists():
        did.append("restored" if dump.exists() else "database")
        if not module.check_mode:
            # What a restore brings is the whole of it: what was there meanwhile goes, with who is connected.
            server.said(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            server.said(f"CREATE DATABASE {name} OWNER {name}")
            server.said(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            if dump.exists():
                server.restored(dump, name)
                dump.unlink()
    loaded = float(server.said("SELECT extract(epoch FROM pg_conf_load_time())"))
    if any(Path(file).stat().st_ctime > loaded for file in module.params["reload_for"]):
        did.append("reload")
        if not module.check_mode:
            server.said("SELECT pg_reload_conf()")
    wrong = server.said("SELECT string_agg(error, '; ') FROM pg_hba_file_rules WHERE error IS NOT NULL")
    if wrong:
        module.fail_json(msg=f"pg_hba.conf is not understood: {wrong}. Correct postgresql_clients.")
    module.exit_json(changed=bool(did), did=did)


def absent(module: AnsibleModule) -> None:
    """Drop the clusters that this module has made, with their data; nothing else."""
    found = [(version, name) for name in recorded() for version in versions(f"*/{name}/postgresql.conf", CLUSTERS)]
    changed = RECORD.exists()
    if not module.check_mode:
        for version, name in found:
            run(module, "systemctl", "disable", "--now", f"postgresql@{version}-{name}.service")
            run(module, "pg_dropcluster", "--stop", version, name)
            # It leaves what it does not know: certificate, key and our settings.
            shutil.rmtree(CLUSTERS / version / name, ignore_errors=True)
        RECORD.unlink(missing_ok=True)
    module.exit_json(changed=changed, dropped=[f"{version}/{name}" for version, name in found])


def main() -> None:
    """Make, or take away."""
    spec = {
        "state": {"type": "str", "choices": ["cluster", "account", "absent"], "required": True},
        "cluster": {"type": "str", "default": "binder"},
        "port": {"type": "int", "default": 5432},
        "version": {"type": "str", "default": ""},
        "name": {"type": "str", "default": "binder"},
        "password": {"type": "str", "default": "", "no_log": True},
        "dump": {"type": "path", "default": ""},
        "reload_for": {"type": "list", "elements": "path", "default": []},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    for word in (module.params["cluster"], module.params["name"]):
        if not NAME.fullmatch(word):
            module.fail_json(msg=f"{word!r} is no name for a cluster, an account or a database here: small letters, digits and _.")
    {"cluster": cluster, "account": account, "absent": absent}[module.params["state"]](module)


if __name__ == "__main__":
    main()
