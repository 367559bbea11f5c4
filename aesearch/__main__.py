"""``python -m aesearch``."""

from aesearch.cli import app

if __name__ == "__main__":
    app(prog_name="aesearch")
