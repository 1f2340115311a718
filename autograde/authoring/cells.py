"""Make the cells of a notebook from a chapter: nbgrader's metadata, links, bootstrap, hints, claims and cards."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import nbformat
from nbformat import NotebookNode

from autograde import repository
from autograde.authoring.bank import Bank
from autograde.authoring.cards import card, claim_quote, claim_verdict
from autograde.authoring.chapter import Cell, Chapter
from autograde.authoring.folding import COLLAPSED, folded
from autograde.authoring.lint import exercises_of
from autograde.exercise import Exercise
from autograde.judging.forbidding import off_limits

_BOOTSTRAP = """\
# Only for Colab: this fetches the course's own code, and the packages that Colab lacks.
import importlib.util
import subprocess
import sys

REPOSITORY, VERSION = "{slug}", "{tag}"
if "google.colab" in sys.modules and importlib.util.find_spec("autograde") is None:
    if REPOSITORY.startswith("OWNER/"):
        sys.exit("This copy of the course is not published yet: run `autograde slug OWNER/REPO` with its own address.")
    LACKING = [{lacking}]
    INSTALL = [sys.executable, "-m", "pip", "install", "-q"]
    COURSE = f"git+https://github.com/{{REPOSITORY}}@{{VERSION}}"
    for packages in (LACKING, ["--no-deps", {models}], ["--no-deps", COURSE]):
        if subprocess.run([*INSTALL, *packages]).returncode:
            sys.exit(f"{{packages[-1]}} can't be installed: check the network and that the repository is public.")
    importlib.invalidate_caches()"""

# JupyterLab's Run All goes on after an error in such a cell: a payoff fails as long as its exercise is open.
_MORE_TAGS = {"payoff": ["raises-exception"]}


class CellMaker:
    """Makes the cells of one chapter. Every id comes from what the cell is, never from chance."""

    def __init__(
        self,
        chapter: Chapter,
        bank: Bank,
        models: list[str],
        lacking: list[str],
        contents: list[tuple[str, str]],
    ):
        self.chapter, self.bank, self.contents = chapter, bank, contents
        self.models, self.lacking = models, lacking
        self.exercises = exercises_of(chapter)
        self._seen: Counter[str] = Counter()

    def notebook(self) -> NotebookNode:
        """The notebook with solutions and hidden tests: what papermill runs and nbgrader takes as its source."""
        cells = [made for cell in self.chapter.cells for made in self._made(cell)]
        cells = cells[:1] + [self._doors(), self._bootstrap()] + cells[1:] + self._cards()
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata = nbformat.from_dict(
            {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
                "title": self.chapter.title,
            }
        )
        notebook.nbformat_minor = 5
        return notebook

    def _made(self, cell: Cell) -> list[NotebookNode]:
        if cell.kind == "markdown":
            return [self._markdown(cell.source)]
        if cell.kind == "exercise":
            return [self._code(cell, nbgrader_marks(cell.name, solution=True)), self._hints(self.exercises[cell.name])]
        if cell.kind == "check":
            return [self._check(cell)]
        if cell.kind == "claim":
            claim = self.bank.claims[cell.name]
            return [self._markdown(claim_quote(claim)), *self._folded(cell), self._markdown(claim_verdict(claim))]
        if cell.kind == "setup":
            return [self._code(cell, nbgrader_marks("setup", locked=True))]
        return self._folded(cell)

    def _folded(self, cell: Cell) -> list[NotebookNode]:
        made = []
        # A payoff stays whole: where its first part ends in an error, the second would draw from what isn't there.
        for source, hide in [(cell.source, False)] if cell.kind == "payoff" else folded(cell.source):
            made.append(self._code(replace(cell, source=source)))
            made[-1].metadata.update(COLLAPSED if hide else {})
        return made

    def _check(self, cell: Cell) -> NotebookNode:
        hidden = f"### BEGIN HIDDEN TESTS\ncheck({cell.name}, hidden=True)\n### END HIDDEN TESTS"
        grader = nbgrader_marks(f"check_{cell.name}", grade=True, locked=True)
        grader["points"] = self.exercises[cell.name].points
        made = self._code(cell, grader)
        made.source = f"{cell.source}\n{hidden}"
        return made

    def _code(self, cell: Cell, grader: dict | None = None) -> NotebookNode:
        metadata = {"tags": [cell.kind, *_MORE_TAGS.get(cell.kind, [])]}
        if grader:
            metadata["nbgrader"] = grader
        name = cell.name or cell.source
        return nbformat.v4.new_code_cell(cell.source, id=self._id(f"{cell.kind} {name}"), metadata=metadata)

    def _markdown(self, text: str) -> NotebookNode:
        return nbformat.v4.new_markdown_cell(text, id=self._id(f"markdown {text}"))

    def _id(self, what: str) -> str:
        self._seen[what] += 1
        return hashlib.sha256(f"{self.chapter.path} {what} {self._seen[what]}".encode()).hexdigest()[:12]

    def _doors(self) -> NotebookNode:
        """Where else the chapter opens. As words: a picture of a badge would ask its host whenever a chapter opens."""
        path = f"notebooks/{self.chapter.path}.ipynb"
        doors = f"Open it [on Binder]({repository.binder_url(path)}) or [on Colab]({repository.colab_url(path)})."
        return self._markdown(f"{doors}\n\n{self._table_of_chapters()}".rstrip())

    def _table_of_chapters(self) -> str:
        if self.chapter.exercises != "start_here":
            return ""
        rows = [f"| [{title}]({path}.ipynb) | `{path.split('/')[0]}` |" for path, title in self.contents if "/" in path]
        table = "\n".join(["| chapter | section |", "|---|---|", *rows])
        return f"<details>\n<summary>All chapters, as links</summary>\n\n{table}\n\n</details>"

    def _bootstrap(self) -> NotebookNode:
        models, lacking = (", ".join(f'"{each}"' for each in names) for names in (self.models, self.lacking))
        source = _BOOTSTRAP.format(slug=repository.slug(), tag=repository.tag(), models=models, lacking=lacking)
        grader = nbgrader_marks("bootstrap", locked=True)
        metadata = {"tags": ["bootstrap"], "nbgrader": grader, **COLLAPSED}
        return nbformat.v4.new_code_cell(source, id=self._id("bootstrap"), metadata=metadata)

    def _hints(self, exercise: Exercise) -> NotebookNode:
        hints = [
            f"<details>\n<summary>Hint {i}</summary>\n\n{hint}\n\n</details>"
            for i, hint in enumerate(exercise.hints, start=1)
        ]
        told = off_limits(exercise.forbid)  # what a docstring names or not: nobody shall learn of it by being refused
        return self._markdown("\n\n".join(filter(None, [told, "\n".join(hints)])))

    def _cards(self) -> list[NotebookNode]:
        questions = [self.bank.questions[q] for q in self.chapter.questions]
        if not questions:
            return []
        opening = "## In the interview\n\nAnswer aloud before you open a card."
        return [self._markdown(opening), *(self._markdown(card(entry)) for entry in questions)]


def nbgrader_marks(grade_id: str, grade: bool = False, solution: bool = False, locked: bool = False) -> dict:
    return {
        "grade": grade,
        "grade_id": grade_id,
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
