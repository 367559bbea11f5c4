"""``aesearch`` and ``python -m aesearch``."""

import sys

from aesearch import stopping


def main() -> None:
    """Run the command line."""
    stopping.listen()  # before the imports that take time
    try:
        from aesearch.cli import app

        app(prog_name="aesearch")
    except stopping.Stopped as stopped:
        sys.exit(stopped.code)


if __name__ == "__main__":
    main()
