"""What a stranger reads first: links lead somewhere, commands exist, what is made is current, the citation is valid."""

from __future__ import annotations

import argparse
import inspect
import io
import re
import tomllib

import jsonschema
import numpy
import pytest
import yaml
from PIL import Image

import course
from autograde import cli
from autograde.authoring import front
from autograde.repository import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# GitHub's and Binder's own rules for CITATION.cff, as far as this file goes: https://citation-file-format.github.io
TEXT = {"type": "string", "minLength": 1}
CFF = {
    "type": "object",
    "additionalProperties": False,
    "required": ["cff-version", "message", "title", "authors"],
    "properties": dict.fromkeys(("message", "title", "abstract"), TEXT)
    | {
        "cff-version": {"const": "1.2.0"},
        "type": {"enum": ["software", "dataset"]},
        "authors": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["name"]}},
        "version": TEXT,
        "date-released": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        "license": {"enum": ["MIT"]},
        "keywords": {"type": "array", "minItems": 1, "uniqueItems": True, "items": TEXT},
    },
}


@pytest.fixture(scope="module")
def chapters():
    return front.settled()


def code_of(text: str) -> list[str]:
    """What stands in a page as code: its blocks' lines, and its spans."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`]+)`", outside)


def anchors(text: str) -> set[str]:
    return {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page):
    code = [" ".join(line.split()) for line in code_of((ROOT / page).read_text(encoding="utf-8"))]
    parser = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    for line in code:
        if found := re.search(r"course\.py (\w+)", line):
            assert found[1] in commands_of_help(), line
        if found := re.match(r"(?:\.venv/bin/)?autograde ([a-z]\w*)", line):
            assert found[1] in parser.choices, line


def commands_of_help() -> set[str]:
    return set(re.findall(r"^  (\w+)  ", course.HELP, re.MULTILINE))


def test_help_names_every_command_and_no_other(monkeypatch, capsys):
    monkeypatch.setattr(course.course_setup, "setup", lambda: None)
    functions = {name: value for name, value in vars(course).items() if inspect.isfunction(value)}
    assert commands_of_help() == {
        n for n, f in functions.items() if list(inspect.signature(f).parameters) == ["options"]
    }
    assert course.main(["no_such_command"]) == 2 and course.HELP in capsys.readouterr().out


def test_the_readme_is_for_people():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert "`python course.py lab`" in README and "`python course.py" in README
    pictures = re.findall(r"^!\[([^\]]*)\]\(([^)]+)\)$", README, re.MULTILINE)
    assert [path for _, path in pictures] == [front.PICTURE]


def test_table_picture_and_numbers_come_from_the_chapters(chapters):
    again = "run `autograde readme`"
    assert front.tables(README, chapters) == README, again
    assert f"![{front.alt(chapters)}]({front.PICTURE})" in README, again
    assert f"Say of {sum(len(chapter.claims) for chapter in chapters)} sentences" in README
    asked = {claim["id"].split(".")[0] for chapter in chapters for claim in chapter.claims}
    assert f"Answer {len(asked)} interview questions" in README


def test_the_picture_is_what_the_command_draws(chapters):
    there, drawn = (
        numpy.asarray(Image.open(picture).convert("RGB"), dtype=float)
        for picture in (ROOT / front.PICTURE, io.BytesIO(front.draw(chapters)))
    )
    assert there.shape == drawn.shape
    # One square of another color changes the mean by 0.05; another processor's rounding by less than a hundredth.
    assert numpy.abs(there - drawn).mean() < 0.02, "run `autograde readme`"


def test_a_row_too_few_or_too_many_is_named(chapters):
    row = next(line for line in README.splitlines() if "/04_rope.ipynb) |" in line)
    for wrong in (README.replace(row + "\n", ""), README.replace(row, f"{row}\n{row}")):
        with pytest.raises(ValueError, match="04_rope"):
            front.tables(wrong, chapters)


def test_writing_changes_nothing_but_what_is_made(tmp_path, monkeypatch, chapters):
    text = README.replace("**wrong**", "**fine**").replace("3 outdated", "9 outdated")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(front, "settled", lambda root: chapters)
    monkeypatch.setattr(front, "write_badges", lambda root: False)
    assert text != README and front.write(tmp_path) == [front.PICTURE, "README.md"]
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == README
    assert front.write(tmp_path) == []


def test_the_citation_is_valid_and_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    jsonschema.validate(cited, CFF)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{cited['version']}] - {cited['date-released']}\n" in changes
    assert re.findall(r"^## \[([^\]]+)\]", changes, re.MULTILINE)[0] in ("Unreleased", cited["version"])
