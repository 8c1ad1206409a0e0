"""What a translator starts from: adds the entries that a catalogue lacks, untranslated, and makes a catalogue for a new language.

``make translate`` does it for every language there is, ``make translate NEW=de`` for one. What is written down already stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from babel.messages.extract import extract_from_dir

from binder_onprem.config import Config
from tests.unit import spoken
from tests.unit.webstand import displays

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGE = Path(__file__).parents[1] / "binder_onprem"
WEB = PACKAGE / "web"
CONTEXT = 'msgctxt "message"\n'
HEAD = """msgid ""
msgstr ""
"Project-Id-Version: binder-onprem\\n"
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"""


def of_pages() -> set[str]:
    """Strings of templates and scripts, and providers' labels."""
    return of_files() | {item["repo"]["label"] for item in displays(Config())}


def of_files() -> set[str]:
    """Strings of templates, those of JupyterHub's pages too, and of scripts."""
    found = extract_from_dir(
        str(PACKAGE),
        method_map=[("web/templates/**.html", "jinja2"), ("hub/templates/**.html", "jinja2"), ("web/static/**.js", "javascript")],
        options_map={"web/static/**.js": {"parse_template_string": "true"}},
        keywords={"_": None, "t": None},
    )
    return {message for _, _, message, _, _ in found if isinstance(message, str)}


def quoted(text: str) -> str:
    """As a catalogue writes it, on one line."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def missing(catalogue: str) -> Iterable[str]:
    """Entries that a catalogue's text lacks, ready to be appended."""
    pages = {f"msgid {quoted(source)}\n": source for source in sorted(of_pages())}
    said = {f"{CONTEXT}msgid {quoted(source)}\n": where for source, where in sorted(spoken.sentences().items())}
    yield from (f'\n{entry}msgstr ""\n' for entry in pages if entry not in catalogue)
    yield from (f'\n# {where}; {{}} becomes {{0}}, {{1}}, ...\n{entry}msgstr ""\n' for entry, where in said.items() if entry not in catalogue)


def main(*languages: str) -> None:
    """Complete the catalogues of these languages, or of all there are."""
    for language in languages or sorted(folder.name for folder in (WEB / "locale").iterdir() if folder.is_dir()):
        file = WEB / "locale" / language / "LC_MESSAGES" / "messages.po"
        text = file.read_text(encoding="utf-8") if file.exists() else HEAD.format(language=language)
        added = list(missing(text))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "".join(added), encoding="utf-8")
        sys.stdout.write(f"{file}: {len(added)} new entries\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
