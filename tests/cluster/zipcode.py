"""Lets a test's host compile once what Ansible sends with each task: a zip of sources, whose compiling takes most of a task's time.

Goes into the roots of `roots`, for their own Python alone; it is imported at each start of it, so it imports little.
"""

import _imp
import marshal
import os
import zipimport
from importlib.util import MAGIC_NUMBER

FOLDER = "/var/cache/zipcode"
KEY = int.from_bytes(MAGIC_NUMBER, "little")
_compile = zipimport._compile_source


def kept(path, source):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The code of a source; root's processes keep it for later ones."""
    name = f"{FOLDER}/{_imp.source_hash(KEY, source).hex()}"
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - pathlib takes long to import
            return marshal.load(file)  # noqa: S302 - root wrote it
    except (OSError, ValueError, EOFError, TypeError):
        code = _compile(path, source)
    if os.getuid() == 0:
        new = f"{name}.{os.getpid()}"
        with open(new, "wb") as file:  # noqa: PTH123 - as above
            marshal.dump(code, file)
        os.replace(new, name)  # noqa: PTH105 - as above
    return code


zipimport._compile_source = kept
