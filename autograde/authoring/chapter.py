"""Read one chapter source (py:percent) into cells with a kind and a name."""

from __future__ import annotations

import functools
import pathlib
import re
from dataclasses import dataclass, field

import jupytext
import yaml

from autograde.regions import solution_regions

_TAGS = ("setup", "demo", "payoff")
_NAMED = ("exercise", "check", "claim")
_HEADING, _FENCED = re.compile(r"^(#{1,6}) ", re.MULTILINE), re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADER = re.compile(r"# ---\n((?:#.*\n)*?)# ---\n")


class AuthoringError(ValueError):
    """Something in the sources that the author has to mend. `problems` holds one sentence each."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Cell:
    """One cell of a source. `name` is the exercise's or the claim's, empty for others; `number` counts from 1."""

    kind: str
    source: str
    number: int
    name: str = ""


@dataclass
class Chapter:
    """One chapter: its path below solutions/ without the ending ("01_transformer/04_rope"), header and cells.

    `needs` are the paths of the chapters that should be solved before it.
    """

    path: str
    title: str = ""
    exercises: str = ""
    questions: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        return f"solutions/{self.path}.py"

    def of(self, kind: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == kind]

    def at(self, cell: Cell) -> str:
        """Where a cell stands, for an error message."""
        first = next((line for line in cell.source.splitlines() if line.strip()), "")
        return f"{self.file}, cell {cell.number} ({first.strip()[:60]!r})"


def read(root: pathlib.Path, path: str) -> Chapter:
    """The chapter at solutions/`path`.py; what is wrong with it stands in `problems`."""
    return _read(path, _text(root, path))


@functools.lru_cache(maxsize=64)
def _read(path: str, text: str) -> Chapter:
    """A chapter that was read once, and is whole: nobody changes it."""
    chapter, body = _opened(path, text)
    for number, cell in enumerate(jupytext.reads(body, fmt="py:percent").cells, start=1):
        chapter.cells.append(_cell(chapter, cell, number))
    if not chapter.cells or not chapter.cells[0].source.startswith("# "):
        chapter.problems.append(f"{chapter.file}: the first cell should be markdown with the title, `# …`.")
    chapter.problems += _headings(chapter)
    return chapter


def _headings(chapter: Chapter) -> list[str]:
    """What is wrong with the headings: one title, and no level left out, so that outlines and screen readers follow."""
    problems, before = [], 0
    for cell in (cell for cell in chapter.cells if cell.kind == "markdown"):
        for level in map(len, _HEADING.findall(_FENCED.sub("", cell.source))):
            if level == 1 and before:
                problems.append(f"{chapter.at(cell)}: a second title, `# …`; a section begins with `## …`.")
            elif level > before + 1 > 1:
                problems.append(f"{chapter.at(cell)}: `{'#' * level}` below `{'#' * before}` leaves out a level.")
            before = level
    return problems


def all_chapters(root: pathlib.Path) -> list[Chapter]:
    """Every chapter below solutions/, in order."""
    return [read(root, path) for path in paths(root)]


def paths(root: pathlib.Path) -> list[str]:
    """The paths of all chapters, in order. Nothing is read."""
    folder = root / "solutions"
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.py"))


def title_of(root: pathlib.Path, path: str) -> str:
    """A chapter's title, of which nothing but the header is read."""
    return _opened(path, _text(root, path))[0].title


def exercises_of(root: pathlib.Path, path: str) -> str:
    """The folder of a chapter's exercises ("transformer.rope"), of which nothing but the header is read."""
    return _opened(path, _text(root, path))[0].exercises


def _text(root: pathlib.Path, path: str) -> str:
    return (root / "solutions" / f"{path}.py").read_text(encoding="utf-8")


def _opened(path: str, text: str) -> tuple[Chapter, str]:
    """A chapter with what its header says, and the text of its cells."""
    chapter = Chapter(path)
    header = _HEADER.match(text)
    _read_header(chapter, header.group(1) if header else "")
    return chapter, (text[header.end() :] if header else text).lstrip("\n")  # jupytext makes a cell of a blank line


def _read_header(chapter: Chapter, text: str) -> None:
    try:
        content = yaml.safe_load("\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines()))
        header = dict(content["jupyter"]["course"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        chapter.problems.append(
            f"{chapter.file}: needs a header with `jupyter: course:` and title, exercises, questions."
        )
        return
    chapter.title, chapter.exercises = str(header.pop("title", "") or ""), str(header.pop("exercises", "") or "")
    chapter.questions = _listed(chapter, header, "questions", "[T04, T05]")
    chapter.needs = _listed(chapter, header, "needs", "[01_transformer/01_attention]")
    if not chapter.title:
        chapter.problems.append(f"{chapter.file}: the course header has no title.")
    if header:
        chapter.problems.append(f"{chapter.file}: the course header has unknown keys {sorted(header)}.")


def _listed(chapter: Chapter, header: dict, key: str, like: str) -> list[str]:
    found = header.pop(key, None) or []
    if isinstance(found, list):
        return [str(each) for each in found]
    chapter.problems.append(f"{chapter.file}: `{key}` in the course header should be a list, like {like}.")
    return []


def _cell(chapter: Chapter, cell, number: int) -> Cell:
    meta = {k: v for k, v in cell.metadata.items() if k != "lines_to_next_cell"}
    tags = meta.pop("tags", [])
    if cell.cell_type == "markdown":
        kinds, made = ["markdown"], Cell("markdown", cell.source, number)
    else:
        kinds = [t for t in tags if t in _TAGS] + [k for k in _NAMED if k in meta]
        made = Cell(kinds[0] if kinds else "", cell.source, number, str(meta.get(kinds[0], "")) if kinds else "")
    strange = sorted(set(map(str, tags)) - set(_TAGS)) + sorted(set(meta) - set(_NAMED))
    if strange:
        chapter.problems.append(f"{chapter.at(made)}: has unknown marks {strange}.")
    elif not kinds:
        chapter.problems.append(f"{chapter.at(made)}: has none of the marks {', '.join(_TAGS + _NAMED)}.")
    elif len(kinds) > 1:
        chapter.problems.append(f"{chapter.at(made)}: has more than one mark: {kinds}.")
    return made


def lines_of_solution(cell: Cell) -> list[str]:
    """The lines inside the solution regions of a cell."""
    lines = cell.source.splitlines()
    return [line for first, last in solution_regions(cell.source)[0] for line in lines[first + 1 : last]]
