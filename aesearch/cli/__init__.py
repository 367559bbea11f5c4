"""The command line: each command parses, calls once, shows."""

from aesearch.cli.main import app

__all__ = ["app"]
