"""`autograde build`: solutions/*.py -> notebooks/*.ipynb, the same bytes every time."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable, Collection

import nbformat
from nbformat import NotebookNode

from autograde.authoring import bank, lint
from autograde.authoring.cells import CellMaker
from autograde.authoring.chapter import AuthoringError, Chapter, lines_of_solution, paths, read, title_of
from autograde.authoring.colab import lacking
from autograde.files import replace
from autograde.repository import ROOT


def build(root: pathlib.Path = ROOT) -> list[str]:
    """Write every release to notebooks/ and remove what no chapter makes. Returns the paths that changed.

    Raises AuthoringError, and writes nothing, where the sources are not in order.
    """
    wanted = releases(root)
    changed = stale(root, wanted)
    for path in changed:
        target = root / "notebooks" / path
        if path in wanted:
            replace(target, wanted[path])
        else:
            target.unlink()
    return changed


def stale(root: pathlib.Path = ROOT, wanted: dict[str, str] | None = None) -> list[str]:
    """The notebooks that are missing, out of date, or made by no chapter."""
    wanted = releases(root) if wanted is None else wanted
    folder = root / "notebooks"
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    old = {path for path in wanted.keys() & there if _read(folder / path) != wanted[path]}
    return sorted(old | (wanted.keys() ^ there))


def releases(root: pathlib.Path = ROOT) -> dict[str, str]:
    """Every release by its path below notebooks/, as text."""
    return {f"{path}.ipynb": as_text(released(notebook)) for path, notebook in sources(root).items()}


def sources(
    root: pathlib.Path = ROOT, wanted: Collection[str] | None = None, told: Callable[[str], None] = lambda path: None
) -> dict[str, NotebookNode]:
    """Every notebook with solutions and hidden tests, by the chapter's path. Raises AuthoringError.

    With `wanted` (paths) only those chapters are read, looked through and made. `told` hears each path as it is made.
    """
    known, questions = paths(root), bank.load(root)
    chapters = [read(root, path) for path in known if wanted is None or path in wanted]
    if wrong := lint.problems(chapters, questions, some=wanted is not None):
        raise AuthoringError(wrong)
    contents = [(path, title_of(root, path)) for path in known]
    made = {}
    for chapter in chapters:
        told(chapter.path)
        made[chapter.path] = CellMaker(chapter, questions, _models(root), lacking(chapter, root), contents).notebook()
    return made


def solution_notebooks(target: pathlib.Path, root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """Write the notebooks with solutions below `target`, one folder a section. Returns their paths."""
    paths = []
    for path, notebook in sources(root).items():
        paths.append(pathlib.Path(target) / f"{path}.ipynb")
        replace(paths[-1], as_text(notebook))
    return paths


def released(notebook: NotebookNode) -> NotebookNode:
    """What `nbgrader generate_assignment` makes of a source notebook: by nbgrader's own steps."""
    from nbgrader.preprocessors import ClearHiddenTests, ClearOutput, ClearSolutions, ComputeChecksums, LockCells
    from traitlets.config import Config

    from autograde.nbgrader_config import configure

    config = Config()
    configure(config)
    made = nbformat.from_dict(json.loads(json.dumps(notebook)))
    for step in (LockCells, ClearSolutions, ClearOutput, ClearHiddenTests, ComputeChecksums):
        preprocessor = step(config=config)
        preprocessor.log.setLevel(logging.ERROR)
        made, _ = preprocessor.preprocess(made, {"unique_key": "", "nbgrader": {}})
    return made


def as_text(notebook: NotebookNode) -> str:
    """A notebook as the file holds it: sorted keys, one newline at the end."""
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def lines_of_solutions(chapter: Chapter) -> list[str]:
    """The lines of a chapter that a release must not show."""
    return [line for cell in chapter.of("exercise") for line in lines_of_solution(cell)]


def _models(root: pathlib.Path) -> list[str]:
    lines = (root / "requirements-models.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def _read(path: pathlib.Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")
