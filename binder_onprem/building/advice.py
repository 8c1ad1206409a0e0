"""What to do about a step that failed, from the last lines it printed: well-known failures in the words of those who meet them.

Called by `layerbuild` and `dockerbuild`. Pure. A repository shapes these lines: nothing of them is shown, they only choose among our own sentences.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

LINES: Final = 60
LETTERS: Final = 1000
"""Characters of a line that are looked at."""
USUAL: Final = "The last lines of the log say why."
_SAID: Final[dict[str, tuple[str, ...]]] = {
    ("It asked for a host that builds do not reach here; the log names it. Take the package from this site's mirrors, or ask the administrator."): (
        r"CONNECT tunnel failed, response 403",
        r"HTTP code 403 from proxy",
        r"403 Forbidden by the address rules",
        r"unsuccessful tunnel",
        r"tunnel error",
    ),
    "A package does not have the hash that the requirements name. Correct the hash, or leave it out.": (
        r"Hash mismatch",
        r"DO NOT MATCH THE HASHES",
    ),
    ("The requirements name a file of the computer where they were written (file://…). Write the package's name and version instead."): (
        r"Distribution not found at: file://",
        r"No such file or directory: '/.*(feedstock_root|croot)",
    ),
    ("A line of the requirements is not of the form that pip reads; the log shows it. Correct it: name==version, one package per line."): (
        r"Couldn't parse requirement",
        r"Invalid requirement",
    ),
    ("The packages cannot be had together, or one does not exist in this version for this Python; the log says which. Ask for other versions."): (
        r"No solution found when resolving",
        r"ResolutionImpossible",
        r"was not found in the (package )?(registry|index)",
    ),
    ("A package has to be compiled, and a library or the compiler is missing. Add the Debian package that has it to apt.txt."): (
        r"fatal error: [^\s:]+\.h: No such file",
        r"command '\S*(gcc|g\+\+|cc)' failed: No such file",
        r"No such file or directory: '\S*(gcc|g\+\+|cc)'",
    ),
    "There is no sudo here: list Debian packages in apt.txt, which installs them as root.": (
        r"sudo: (command )?not found",
        r"sudo: .*no new privileges",
    ),
    "There is no conda in this environment: list the packages in requirements.txt, or write an environment.yml.": (
        r"(conda|mamba): (command )?not found",
    ),
    ("This Jupyter has no such command any more: extensions that are installed are enabled by themselves. Remove that line from postBuild."): (
        r"`jupyter-(nb|server|bundler)extension` not found",
    ),
    (
        "It needs Node.js, which is not in the base image: write nodejs and npm into apt.txt. Extensions of JupyterLab "
        "come ready-made as Python packages."
    ): (
        r"(npm|node|yarn|npx): (command )?not found",
        r"Please install Node\.js",
    ),
    "apt.txt names a package that Debian does not have; the log says which.": (
        r"E: Unable to locate package",
        r"E: Package '\S+' has no installation candidate",
    ),
    "apt.txt asks for a version that Debian does not have. Leave the version out.": (r"E: Version '\S+' for '\S+' was not found",),
    "A package could not be built from its sources. A newer version of it may come ready-made.": (
        r"Call to `\S+` failed",
        r"subprocess-exited-with-error",
    ),
}
"""What to do, and the forms of what is said then."""
_KNOWN: Final = tuple((re.compile("|".join(patterns)), sentence) for sentence, patterns in _SAID.items())


class Advice:
    """Listens to a step's output."""

    def __init__(self) -> None:
        self._last: deque[str] = deque(maxlen=LINES)

    def hear(self, line: str) -> None:
        """One line of the log."""
        self._last.append(line[:LETTERS])

    def sentence(self) -> str:
        """What to do; `USUAL` when it is nothing that we know."""
        said = "\n".join(self._last)
        return next((sentence for pattern, sentence in _KNOWN if pattern.search(said)), USUAL)
