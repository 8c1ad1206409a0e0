"""Calls the function of ``hook.entry_point`` in a process of its own: JSON on standard input, its answer as JSON on standard output."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from importlib import import_module


def main(name: str) -> None:
    """Call ``module:function`` with the decoded object; what it prints goes to standard error."""
    module, _, function = name.partition(":")
    with redirect_stdout(sys.stderr):
        answer = getattr(import_module(module), function)(json.load(sys.stdin))
    json.dump(answer or {}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
