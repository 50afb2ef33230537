"""What the pages say is there: files, headings, commands with their options, imports."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ma_agiqa_core.cli import PROGRAM, cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted({README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")})
SET_UP = "    python3 -m venv .venv && .venv/bin/pip install -e "

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs/{page.name}"
)


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of one language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings: lower case, without punctuation, spaces as hyphens."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """The command lines of ours that are shown whole, as words after the program's name."""
    for line in "\n".join(blocks(page)).splitlines():
        if PROGRAM in line.split() and "..." not in line:
            words = shlex.split(line, comments=True)
            words = words[words.index(PROGRAM) + 1 :]
            ends = [place for place, word in enumerate(words) if word in ("|", "&", "&&")]
            yield words[: min(ends, default=len(words))]


def test_readme_is_short_and_begins_with_two_lines_and_a_picture():
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) <= 150
    first_screen = lines[:20]
    assert f"{SET_UP}. && .venv/bin/ma-agiqa demo" in first_screen
    assert f'{SET_UP}".[test]" && .venv/bin/pytest' in first_screen
    assert len([line for line in first_screen if line.startswith("![")]) == 1


def test_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES if page.parent != ROOT and f"({page.name})" not in index] == ["README.md"]


@each_page
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@each_page
def test_commands_have_the_options_that_they_are_shown_with(page):
    for words in commands(page):
        name, *arguments = words
        command = cli.commands[name]
        command.make_parser(click.Context(command)).parse_args(arguments)  # raises NoSuchOption


@each_page
def test_imports_of_ours_work(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ma_agiqa_core"):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@each_page
def test_modules_to_run_are_there(page):
    for module in re.findall(r"python -m ((?:ma_agiqa_core|benchmarks)[\w.]*)", page.read_text("utf-8")):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
