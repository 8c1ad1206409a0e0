"""Put the certificates of a bundle that the distribution does not have among the local ones. Runs in the image, once; argument: the bundle."""

# ruff: noqa: INP001 - a script, not a module of the package
import re
import sys
from pathlib import Path

LOCAL = Path("/usr/local/share/ca-certificates")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def bodies(text: str) -> dict[str, str]:
    """Certificates by what they hold, whatever their line breaks."""
    return {"".join(pem.split()): pem for pem in PEM.findall(text)}


own: dict[str, str] = {}
for file in Path("/usr/share/ca-certificates").rglob("*.crt"):
    own.update(bodies(file.read_text(encoding="ascii", errors="replace")))
LOCAL.mkdir(parents=True, exist_ok=True)
for number, (body, pem) in enumerate(bodies(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")).items()):
    if body not in own:
        (LOCAL / f"site-{number}.crt").write_text(pem + "\n", encoding="utf-8")
