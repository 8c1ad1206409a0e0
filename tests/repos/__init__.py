"""Repositories for tests, and a real git server on loopback that serves them and can be told to misbehave."""

from tests.repos.contents import BUILDERS, Repository
from tests.repos.forge import Forge, Token
from tests.repos.server import GitServer, Trouble

__all__ = ["BUILDERS", "Forge", "GitServer", "Repository", "Token", "Trouble"]
