"""Everything that Sphinx reads, written to build/site/source/ from the course's own files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from autograde.authoring import bank, build
from autograde.authoring.chapter import Chapter, read
from autograde.files import replace
from autograde.repository import ROOT
from website import chapters, drill, runs, verdicts

SECTIONS = {
    "01_transformer": "The Transformer",
    "02_applications": "Language-model applications",
    "03_data_parallel": "Parallel training",
}
GUIDES = {
    "teaching": "docs/teaching.md",
    "contributing": "CONTRIBUTING.md",
    "architecture": "docs/architecture.md",
    "cluster": "docs/cluster.md",
}
_PAGES = Path(__file__).parent / "pages"
_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def write(folder: Path, solved: dict[str, NotebookNode], kept: Path = runs.FOLDER) -> list[str]:
    """Write the sources of all pages below `folder`/source and the figures below `folder`/extra.

    solved: the chapters of the site, path -> notebook with solutions. kept: where their runs lie. What is as it was
    stays untouched, so that Sphinx has nothing to do for it; what no page needs any more is removed. Returns a sentence
    for every chapter without outputs.
    """
    questions = bank.load(ROOT)
    heads = {path: read(ROOT, path) for path in solved}
    found = {path: runs.kept(path, runs.key(notebook), kept) for path, notebook in solved.items()}
    texts: dict[Path, str] = {}
    pictures: dict[Path, bytes] = {}
    for path, notebook in solved.items():
        made, figures = chapters.page(path, build.released(notebook), found[path], questions.claims, solved)
        texts[folder / "source" / f"{path}.ipynb"] = build.as_text(made)
        pictures |= {folder / "extra" / "figures" / name: picture for name, picture in figures.items()}
    for name, text in _others(questions, heads, {path: run for path, run in found.items() if run}).items():
        texts[folder / "source" / f"{name}.md"] = text
    for file, text in texts.items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            replace(file, text)
    (folder / "extra").mkdir(exist_ok=True)  # also where there is no figure: Sphinx asks for it
    for file, picture in pictures.items():
        if not file.exists():  # its name is its content's
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture)
    _remove_others(folder, texts.keys() | pictures.keys())
    return [f"{path}: {run.failed if run else 'not run'}" for path, run in found.items() if not run or run.failed]


def _others(questions: bank.Bank, heads: dict[str, Chapter], found: dict[str, runs.Run]) -> dict[str, str]:
    """Every page that is no chapter: name -> markdown."""
    titles = {path: head.title for path, head in heads.items()}
    links: dict[str, list[str]] = {}
    for path, head in heads.items():
        for question in head.questions:
            links.setdefault(question, []).append(f"[{head.title}](/{path}.ipynb)")
    anchored = {cell.name for head in heads.values() for cell in head.of("claim")}
    said = verdicts.found(found)
    letters = dict(zip("TAD", SECTIONS.values(), strict=True))  # a question's name begins with its section's letter
    asked = {title: [q for q in questions.questions if q.startswith(letter)] for letter, title in letters.items()}
    pages = {"index": _index(heads), "verdicts": verdicts.page(questions, said, titles, anchored)}
    cards = drill.pages(questions, {q: ", ".join(each) for q, each in links.items()}, asked)
    pages |= {f"drill/{name}": text for name, text in cards.items()}
    return pages | {name: _guide(file) for name, file in GUIDES.items()}


def _index(heads: dict[str, Chapter]) -> str:
    """The first page, with the table of contents: chapters by section, as far as they are on this site."""
    trees = []
    for section, title in SECTIONS.items():
        paths = [path for path in heads if path.startswith(f"{section}/")]
        if paths:
            trees.append("\n".join(["```{toctree}", f":caption: {title}", ":maxdepth: 1", "", *paths, "```"]))
    text = (_PAGES / "index.md").read_text(encoding="utf-8")
    start = [path for path in heads if "/" not in path]
    return text.replace("CHAPTERS\n", "\n\n".join(trees) + "\n").replace("START\n", "\n".join([*start, ""]))


def _guide(file: str) -> str:
    """A guide of the repository; its links to other guides lead to their pages here."""
    pages = {path: f"/{name}.md" for name, path in GUIDES.items()}
    text = (ROOT / file).read_text(encoding="utf-8")
    return _LINK.sub(lambda link: f"]({pages.get(_from_root(file, link[1]), link[1])})", text)


def _from_root(file: str, link: str) -> str:
    parts: list[str] = []
    for part in [*Path(file).parent.parts, *link.partition("#")[0].split("/")]:
        parts = parts[:-1] if part == ".." else parts if part == "." else [*parts, part]
    return "/".join(parts)


def _remove_others(folder: Path, wanted: Iterable[Path]) -> None:
    """Remove what no page needs any more, and what an earlier build has made of it."""
    wanted = set(wanted)
    for place in (folder / "source", folder / "extra"):
        for file in [file for file in place.rglob("*") if file.is_file() and file not in wanted]:
            file.unlink()
            made = folder / "html" / file.relative_to(place)
            for each in (made, made.with_suffix(".html")):
                each.unlink(missing_ok=True)
