"""The Binder that universities run on their own machines.

The line from a click to a notebook is drawn in ARCHITECTURE.md; its rooms are the modules of this package.
"""

__version__ = "0.1.0"
