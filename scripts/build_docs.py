"""Build the documentation: `python3 scripts/build_docs.py` on a bare machine with Python 3.11 or newer.

Writes docs/options.md from the commands' own help, and builds README.md, SECURITY.md and docs/ to static pages in
site/, with MkDocs; the API reference is made from the docstrings. The pages load nothing from other sites and can be
opened from the disk.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environment import ROOT, prepare

DOCS, SITE = ROOT / "docs", ROOT / "site"
MOVED = {"README.md": "index.md", "SECURITY.md": "security.md"}
NAV = [
    {"Start": "index.md"},
    {
        "Tutorials": [
            {"Find odd parts": "tutorials/odd-parts.md"},
            {"Sort a microscope's images": "tutorials/microscope.md"},
            {"Remove duplicates": "tutorials/duplicates.md"},
            {"Search glyphs": "tutorials/glyphs.md"},
        ]
    },
    {
        "Using it": [
            {"Install": "install.md"},
            {"Where images come from": "sources.md"},
            {"Every option": "options.md"},
            {"The page in the browser": "page.md"},
            {"In Python": "python.md"},
            {"API reference": "api.md"},
        ]
    },
    {
        "Background": [
            {"How it works": "how-it-works.md"},
            {"A collection on disk": "collection.md"},
            {"What is promised": "promises.md"},
            {"Security": "security.md"},
            {"Figures": "figures.md"},
            {"Speed and scale": "scale.md"},
            {"Development": "development.md"},
        ]
    },
]
REFERENCE = {
    "paths": [str(ROOT)],
    "options": {
        "docstring_style": "numpy",
        "heading_level": 2,
        "show_root_heading": True,
        "show_root_full_path": False,
        "show_source": False,
        "members_order": "source",
        "filters": ["!^_"],
        "inherited_members": True,
        "force_inspection": True,
    },
}
SETTINGS = {
    "site_name": "aesearch",
    "nav": NAV,
    "theme": {"name": "readthedocs", "highlightjs": False},
    "plugins": [{"mkdocstrings": {"handlers": {"python": REFERENCE}}}],  # the search of MkDocs needs a server
    "use_directory_urls": False,  # so do folders as addresses
    "extra_css": ["style.css"],
    "markdown_extensions": ["tables", "fenced_code", "toc", "sane_lists"],
    "validation": {"anchors": "warn", "unrecognized_links": "warn", "absolute_links": "warn"},
}


def options_page() -> str:
    """Every command with its arguments and options, in the words of ``--help``."""
    import typer

    from aesearch.cli import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = [
        "# Every option",
        "",
        "Written by `scripts/build_docs.py` from the commands' own `--help`: do not edit.",
        "",
        *(f"- [`aesearch {name}`](#aesearch-{name}): {first_line(command)}" for name, command in commands.items()),
    ]
    for name, command in commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        context.info_name = f"aesearch {name}"
        paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
        records = [record for p in command.params if (record := p.get_help_record(context))]
        lines += ["", f"## aesearch {name}", "", f"`{' '.join(command.get_usage(context).split()[1:])}`"]
        for text in paragraphs:
            example = text.removeprefix("Example: ")
            lines += ["", text if example == text else f"    {example}"]
        lines += ["", "| option | what it does |", "|---|---|"]
        lines += ["| `{}` | {} |".format(*(escape(part) for part in record)) for record in records]
    return "\n".join(lines) + "\n"


def first_line(command: Any) -> str:
    """What the list of commands says of it."""
    return " ".join((command.help or "").split("\n\n")[0].split())


def escape(text: str) -> str:
    """For a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def gather(folder: Path) -> None:
    """Lay out the pages as MkDocs wants them: all in one folder, README.md as the first page."""
    shutil.copytree(DOCS, folder, dirs_exist_ok=True)
    for name, page in MOVED.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (folder / page).write_text(re.sub(r'(\]\(|src=")docs/', r"\1", text), encoding="utf-8")
    for path in folder.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"\]\(((?:\.\./)*)(README\.md|SECURITY\.md)", moved_link, text)
        path.write_text(text, encoding="utf-8")


def moved_link(link: re.Match[str]) -> str:
    """A link to a page from above docs/, which now lies one folder lower."""
    return f"]({link[1].removeprefix('../')}{MOVED[link[2]]}"


def build_site(site: Path = SITE) -> None:
    """Build it; a link that leads nowhere ends it.

    Raises
    ------
    mkdocs.exceptions.Abort
        There is such a link.
    """
    from mkdocs.commands.build import build
    from mkdocs.config.defaults import MkDocsConfig

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory() as pages:
        gather(Path(pages))
        config = MkDocsConfig(config_file_path=str(ROOT / "scripts" / "mkdocs.yml"))
        config.load_dict(SETTINGS | {"docs_dir": pages, "site_dir": str(site), "strict": True})
        failed, warned = config.validate()
        if failed or warned:
            sys.exit(f"MkDocs: {failed or warned}")
        build(config)


def main() -> None:
    """Write the options, build the site."""
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "mkdocstrings", "aesearch", "typer")):
        python = prepare(ROOT / ".venv", "docs")
        sys.exit(subprocess.run([python, __file__], check=False).returncode)
    (DOCS / "options.md").write_text(options_page(), encoding="utf-8")
    build_site()
    print(f"open {SITE / 'index.html'}")


if __name__ == "__main__":
    main()
