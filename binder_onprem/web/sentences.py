"""What the service says, in the reader's language: pure, called by `locale`.

The code speaks English, in f-strings; an entry of a catalogue has each value as ``{}``, its translation as ``{0}``, ``{1}``, … so that their order
may change. A message is compared with the entries by their literal parts alone: time is linear in the message, whatever it holds. What no entry
fits stays as it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTEXT: Final = "message"
"""The `msgctxt` of these entries: pages do not carry them."""
LONGEST: Final = 20_000
"""Characters of a message above which nothing is looked for."""
DEPTH: Final = 3
"""A value may be a part of a sentence that has an entry of its own, and that again."""
HEAD: Final = 6
"""Characters of a literal beginning by which entries are found."""
_NUMBERED: Final = re.compile(r"\{(\d)\}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One sentence: the literals around its values, and its translation."""

    literals: tuple[str, ...]
    translation: str

    @property
    def weight(self) -> int:
        """Literal characters: of two entries that fit, the one that says more is meant."""
        return sum(map(len, self.literals))

    def values(self, message: str) -> list[str] | None:
        """The values in `message`, None when it is not this sentence."""
        first, *inner, last = self.literals
        end = len(message) - len(last)
        if not (message.startswith(first) and message.endswith(last)) or end < len(first):
            return None
        found, at = [], len(first)
        for literal in inner:
            begins = message.find(literal, at, end)
            if begins < 0:
                return None
            found.append(message[at:begins])
            at = begins + len(literal)
        return [*found, message[at:end]]


class Sentences:
    """The entries of one language.

    Args:
        strings: Translation by English sentence.
    """

    def __init__(self, strings: Mapping[str, str]) -> None:
        self._whole = {source: text for source, text in strings.items() if "{}" not in source}
        self._by_head: defaultdict[str, list[Entry]] = defaultdict(list)
        entries = [Entry(tuple(source.split("{}")), text) for source, text in strings.items() if "{}" in source]
        for entry in sorted(entries, key=lambda entry: -entry.weight):
            first = entry.literals[0]
            self._by_head[first[:HEAD] if len(first) >= HEAD else ""].append(entry)

    def translate(self, message: str) -> str:
        """`message` in this language, line feeds at its end kept; itself when there is no entry for it."""
        text = message.rstrip("\n")
        return self._found(text, DEPTH) + message[len(text) :] if len(text) <= LONGEST else message

    def _found(self, text: str, depth: int) -> str:
        if text in self._whole:
            return self._whole[text]
        candidates = [entry for head in (text[:HEAD], "") for entry in self._by_head.get(head, ())] if depth else []
        for entry in candidates:
            values = entry.values(text)
            if values is not None:
                told = [self._found(value, depth - 1) for value in values]
                return _NUMBERED.sub(lambda number: told[int(number[1])] if int(number[1]) < len(told) else "", entry.translation)  # noqa: B023
        return text
