"""Whom people log in by, for real and on loopback: a certified OpenID provider, a slapd, an account of this machine."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.real.tlsregistry import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PASSWORD = "a planted password"
SUFFIX = "dc=uni,dc=example"
PEOPLE = "people.json"


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(log.read_text(errors="replace")[-2000:])


@contextmanager
def _process(folder: Path, port: int, *command: str) -> Iterator[None]:
    log = folder / "said"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder)
    try:
        _answers(port, process, log)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def openid(folder: Path, callback: str, people: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """A provider that lets any name in; `people`, from then on the file `PEOPLE`, says who is in which groups. The settings for it."""
    port, secret = _port(), secrets.token_hex(32)
    (folder / PEOPLE).write_text(json.dumps(people))
    (folder / "secret").write_text(secret + "\n")
    script, modules = Path(__file__).with_name("oidc_provider.mjs"), Path(sys.prefix) / "node" / "node_modules"
    with _process(folder, port, "node", str(script), str(modules), str(port), callback, secret, str(folder / PEOPLE)):
        yield {"kind": "oidc", "issuer": f"http://127.0.0.1:{port}", "client_id": "binder", "client_secret_file": str(folder / "secret")}


@dataclass(frozen=True)
class Directory:
    """A slapd: its settings, and those of one whose certificate is not to be trusted."""

    settings: dict[str, Any]
    distrusted: dict[str, Any]

    def changed(self, *lines: str) -> None:
        """Change it, by lines of LDIF, while it runs."""
        who = ("-x", "-D", f"cn=root,{SUFFIX}", "-w", PASSWORD, "-H", self.settings["server"])
        environment = {**os.environ, "LDAPTLS_CACERT": self.settings["ca_file"]}
        subprocess.run(["ldapmodify", *who], input="\n".join(lines) + "\n", env=environment, text=True, check=True, capture_output=True, timeout=60)


@contextmanager
def directory(folder: Path, people: Mapping[str, Sequence[str]]) -> Iterator[Directory]:
    """Serve by TLS; everybody's password is `PASSWORD`."""
    port, data = _port(), folder / "data"
    data.mkdir()
    ca, certificate, key = certificates(folder)
    groups = sorted({group for names in people.values() for group in names})
    settings = folder / "slapd.conf"
    settings.write_text(
        "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
        + f"modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {folder / 'pid'}\n"
        + f"TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n"
        + f'database mdb\nsuffix "{SUFFIX}"\ndirectory {data}\nrootdn "cn=root,{SUFFIX}"\nrootpw "{PASSWORD}"\n'
        + "access to attrs=userPassword by anonymous auth by * none\naccess to * by * read\n"
    )
    entries = [f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: uni\ndc: uni\n"]
    entries += [f"dn: ou={name},{SUFFIX}\nobjectClass: organizationalUnit\nou: {name}\n" for name in ("people", "groups")]
    entries += [
        f"dn: uid={name},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\nuserPassword: {PASSWORD}\n"
        for name in people
    ]
    for group in groups:
        members = "".join(f"member: uid={name},ou=people,{SUFFIX}\n" for name, of in people.items() if group in of)
        entries.append(f"dn: cn={group},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {group}\n{members}")
    subprocess.run(["/usr/sbin/slapadd", "-f", str(settings)], input="\n".join(entries), text=True, check=True, capture_output=True, timeout=60)
    shared = {
        "kind": "ldap",
        "server": f"ldaps://127.0.0.1:{port}",
        "search_base": f"ou=people,{SUFFIX}",
        "groups": {group: f"cn={group},ou=groups,{SUFFIX}" for group in groups},
    }
    with _process(folder, port, "/usr/sbin/slapd", "-f", str(settings), "-h", f"ldaps://127.0.0.1:{port}", "-d", "0"):
        yield Directory(shared | {"ca_file": str(ca)}, shared)


@contextmanager
def unix_account() -> Iterator[tuple[str, str]]:
    """Name and group of an account of this machine, for as long as the context lasts; its password is `PASSWORD`."""
    name = f"bo{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--no-create-home", "--user-group", "--shell", "/bin/sh", name], check=True, capture_output=True, timeout=60)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}\n", text=True, check=True, capture_output=True, timeout=60)
        yield name, name
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True, timeout=60)
