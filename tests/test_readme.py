"""README and docs tell the truth: commands, options, files and links exist, the Python runs, the formats are there."""

import html.parser
import re
import shlex
import shutil
import unicodedata
import urllib.parse
from pathlib import Path

import build_docs
import h5py
import numpy as np
import pytest
import typer
from PIL import Image

from aesearch.cli import app

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "indexes" / "README.md", *(ROOT / "docs").rglob("*.md")]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
README = PAGES["README.md"]
TEXT = "\n".join(PAGES.values())
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WRITTEN = "\n".join(text for name, text in PAGES.items() if name != "docs/options.md")
LINES = sorted({line.strip() for line in WRITTEN.splitlines() if re.match(r" {4}(\$ )?aesearch [a-z]", line)})
INLINE = sorted(set(re.findall(r"`(aesearch [a-z][^`]*)`", WRITTEN)))
SCRIPT_LINES = sorted(set(re.findall(r"((?:python3|\.venv/bin/python) scripts/\S+\.py[^`\n#]*)", WRITTEN)))
CODE = re.compile(r"```.*?```|`[^`\n]*`|^ {4}[^\n]*$", re.S | re.M)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_named(command):
    assert re.search(rf"aesearch {command}\b|`{command}\b", README)


@pytest.mark.parametrize("line", LINES + INLINE)
def test_every_command_line_uses_options_that_exist(line):
    words = shlex.split(line.removeprefix("$ "), comments=True)
    _, command, *arguments = words[: words.index(">")] if ">" in words else words
    if command == "COMMAND":
        return
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts} | {"--help"}
    assert {a for a in arguments if a.startswith("-")} <= known


def test_options_are_those_of_help():
    message = "run python3 scripts/build_docs.py"
    assert PAGES["docs/options.md"] == build_docs.options_page(), message
    for name, command in COMMANDS.items():
        for parameter in command.params:
            assert all(option in PAGES["docs/options.md"] for option in parameter.opts), (name, parameter.name)


def test_the_readme_is_short_and_begins_with_what_to_do():
    lines = README.splitlines()
    assert len(lines) <= 200
    commands = [line.strip() for line in lines if line.startswith("    ")]
    assert commands[0] == "python3 scripts/quickstart.py"
    assert commands[1].startswith("aesearch build-index") and commands[2].startswith("aesearch query")
    assert next(i for i, line in enumerate(lines) if "<img" in line) < 35
    assert "python3 scripts/run_tests.py" in README


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_and_pictures_lead_to_what_exists(name):
    here = (ROOT / name).parent
    found = re.findall(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"', CODE.sub("", PAGES[name]))
    for link in (a or b for a, b in found):
        assert not urllib.parse.urlsplit(link).scheme, link
        path, _, anchor = link.partition("#")
        target = (here / path).resolve() if path else ROOT / name
        assert target.is_relative_to(ROOT) and target.is_file(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def anchors(text):
    """Of its headings, as GitHub and MkDocs both make them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    assert all(unicodedata.is_normalized("NFKD", title) and title.isascii() for title in plain)
    return {re.sub(r"\s", "-", title) for title in plain}


def test_files_that_are_named_exist():
    named = set(re.findall(r"\b((?:scripts|tests|docs|aesearch)/[\w./-]+\.(?:py|md|png|txt))\b", TEXT))
    assert named and [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    told = set(re.findall(r"`(\w+)/?`", PAGES["docs/development.md"].split("## Sub-packages")[1]))
    package = ROOT / "aesearch"
    kept = {path.stem for path in package.rglob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(kept - told - {"__init__", "__main__"}) == []


def test_options_of_scripts_exist():
    """Wherever a script is named with options in one piece of code, it has them."""
    pieces = re.findall(r"`([^`\n]*scripts/\w+\.py[^`]*)`", TEXT) + SCRIPT_LINES
    assert pieces
    for piece in pieces:
        script = re.search(r"scripts/\w+\.py", piece)[0]
        code = (ROOT / script).read_text(encoding="utf-8")
        if "argparse" in code:
            assert all(f'"{option}"' in code for option in re.findall(r"(?<=\s)--[a-z-]+", piece)), piece


def test_every_page_can_be_found():
    named = {page for page in flat(build_docs.NAV) if page not in build_docs.MOVED.values()}
    assert named == {name.removeprefix("docs/") for name in PAGES if name.startswith("docs/")}
    pictures = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert pictures <= set(re.findall(r"pictures/([\w.-]+)", TEXT))


def flat(nav):
    """Pages of a tree."""
    if isinstance(nav, str):
        return [nav]
    return [page for item in nav for part in item.values() for page in flat(part)]


class Links(html.parser.HTMLParser):
    """What a built page asks for, where it leads, and the places in it."""

    def __init__(self, page):
        super().__init__()
        self.asked, self.leads, self.places = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given.get("id"), given.get("name")}
        if tag == "a" or (tag == "link" and given.get("rel") == "canonical"):
            self.leads += [given["href"]] if given.get("href") else []
        else:
            self.asked += [given[key] for key in ("src", "href", "action", "data", "poster") if given.get(key)]


def test_the_site_is_whole_and_asks_no_other(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    build_docs.build_site(tmp_path / "site")
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) >= len(flat(build_docs.NAV))
    for path, links in pages.items():
        for asked in links.asked:
            assert not re.match(r"(\w+:)?//", asked), (path.name, asked)
            if path.name != "404.html":
                assert (path.parent / urllib.parse.unquote(asked.split("?")[0])).is_file(), (path.name, asked)
        for lead in links.leads:
            url, _, anchor = lead.partition("#")
            if re.match(r"\w+:", url) or path.name == "404.html":
                continue  # a link to another site asks for nothing before it is clicked
            target = (path.parent / url).resolve() if url else path
            assert target in pages and (not anchor or anchor in pages[target].places), (path.name, lead)
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", style.read_text(encoding="utf-8")), style.name


@pytest.mark.slow
def test_the_python_example_runs_and_gives_what_it_says(tmp_path, monkeypatch, digit_images, digits):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits.folder, "indexes/default")  # it uses what is there
    Image.fromarray(digit_images[4]).save("img.png")
    block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    names = {}
    exec(block, names)
    assert names["hits"].ids[0] == "digits/4" and len(names["hits"].rows) == 10
    assert names["X"].shape[0] == len(names["y"]) == 1797
    assert len(names["odd"].rows) == 50 and len(names["groups"]) == 1797 and names["xy"].shape == (1797, 2)


def test_the_store_s_table_names_every_dataset(digits):
    text = PAGES["docs/collection.md"]
    with h5py.File(digits.folder / "features.h5") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert all(f"`{name}`" in text for name in names)
        assert all(f"`{name}`" in text for name in file.attrs)
    assert np.isfinite(digits.features()).all()


def test_every_file_of_a_collection_is_explained(digits):
    kinds = {re.sub(r"map-.*\.", "map-*.", p.name) for p in digits.folder.iterdir() if not p.name.startswith(".")}
    assert all(f"`{kind}`" in PAGES["docs/collection.md"] for kind in kinds)
