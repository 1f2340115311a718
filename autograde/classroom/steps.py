"""The steps that make nbgrader's own run trust only what a learner may write.

nbgrader executes the submitted notebook and believes its outputs. These preprocessors hand it a notebook made from the
teacher's source instead, and believe an output only where it is a number of points.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, Execute, NbGraderPreprocessor
from nbgrader.utils import setenv

from autograde.classroom.submission import SKIPPED, Step, grade_id, marks_of, outline, tags, take
from autograde.exercises import find, names
from autograde.judging.suspecting import suspicions
from autograde.wording import is_score, kept
from labkit.notebook import notebook_of


class TakeOnlySolutions(NbGraderPreprocessor):
    """Replaces a submission by the source notebook with the learner's solution cells in it.

    What is taken from the submission, and where it stands, is what `autograde.classroom.submission.take` says. All else
    (tests, points, tags, metadata, order, outputs) comes from the source. What is left out is a warning in the log.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        source = nbformat.read(_source_of(self.parent.parent.coursedir, resources), as_version=4)
        taken = take(nb.cells, outline(resources["nbgrader"]["notebook"], source.cells))
        known = {step.label: find(step.label) for step in taken.steps if step.kind == "check" and step.label in names()}
        added = [(step.label, step.source) for step in taken.steps if step.kind == "added"]
        for remark in [*taken.remarks, *suspicions(taken.solutions, added, known)]:
            self.log.warning(remark)
        waiting, cells = list(taken.steps), []
        for cell in source.cells:
            name = grade_id(cell)
            if name in {f"check_{step.label}" if step.kind == "check" else step.label for step in waiting}:
                while waiting[0].kind in ("added", "shown"):
                    cells.append(_extra(waiting.pop(0), cells))
                step = waiting.pop(0)
                cell.source = step.source if step.kind == "exercise" else cell.source
            if not SKIPPED & tags(cell):
                cells.append(cell)
        cells += [_extra(step, cells) for step in waiting]
        source.cells = cells
        return source, resources


class AnyNotebook(NotebookExporter):
    """Reads a submission as `autograde grade` does: with a byte order mark, in UTF-16, or not at all and says why."""

    def from_file(self, file_stream: IO, resources: dict | None = None, **options) -> tuple[NotebookNode, dict]:
        notebook = notebook_of(pathlib.Path(file_stream.name).read_bytes())
        nb = nbformat.reads(json.dumps(notebook), as_version=4)
        return self.from_notebook_node(nb, resources=resources, **options)


class ExecuteToTheEnd(Execute):
    """nbgrader's Execute, with the course's seed for the hidden tests in the kernel's environment.

    A kernel that dies, or that can't be interrupted, costs the cells that follow and not the whole submission.
    """

    def preprocess(self, nb: NotebookNode, resources: dict, km=None) -> tuple[NotebookNode, dict]:
        seed = seed_of(self.parent.parent.coursedir.root, **_who(resources))
        try:
            folder = pathlib.Path(resources["metadata"]["path"])
            with _as_before(folder), setenv(AUTOGRADE_SEED=seed, LABKIT_NO_PROGRESS="1"):
                return super().preprocess(nb, resources, km)
        except (DeadKernelError, CellTimeoutError):
            return nb, resources


class BelieveNumbersOnly(NbGraderPreprocessor):
    """Makes a check cell's output what nbgrader's reading of it should be, and leaves no word of the learner's code.

    That code runs beside the hidden tests and their seed, and could tell either in whatever it puts out. So a check
    keeps what `autograde.wording` knows of reports, and a number of points that this check can give (anything
    else is worth 0); other cells, an error's text and times are not kept at all, nor files that the run has left.
    The number is scaled to the points in the gradebook, where a teacher has changed them after the release.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        source = nbformat.read(_source_of(self.parent.parent.coursedir, resources), as_version=4)
        self.released = {grade_id(c): float(marks_of(c)["points"]) for c in source.cells if marks_of(c).get("grade")}
        nb.metadata.pop("widgets", None)
        return super().preprocess(nb, resources)

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.execution_count = None  # a cell can set it
            told = self._of_check if marks_of(cell).get("grade") else self._of_cell
            cell.outputs = told(cell)
        return cell, resources

    def _of_check(self, cell: NotebookNode) -> list[NotebookNode]:
        name = grade_id(cell).removeprefix("check_")
        results = [o for o in cell.outputs if o.output_type == "execute_result"]
        errors = [o for o in cell.outputs if o.output_type == "error"]
        worth = float(cell.metadata.nbgrader.points)
        most = self.released.get(grade_id(cell), worth)
        points = _points(results[0]) if len(results) == 1 and not errors else 0.0
        can_be = most and 0 <= points <= most and is_score(name, points)
        shown = kept(name, "\n".join(map(_text, cell.outputs)))
        told = [shown] * bool(shown) + [self._told(error, name) for error in errors]
        if not cell.outputs:
            told = ["This check did not run: an earlier cell crashed, or could not be stopped."]
        result = nbformat.v4.new_output("execute_result", {"text/plain": str(points * worth / most if can_be else 0.0)})
        return [*(_stream(f"{text}\n") for text in told), result]

    def _of_cell(self, cell: NotebookNode) -> list[NotebookNode]:
        errors = [o for o in cell.outputs if o.output_type == "error"]
        return [_stream(f"{self._told(error, '')}\n") for error in errors]

    def _told(self, error: NotebookNode, name: str) -> str:
        """An error in words that a learner's code can't choose."""
        stopped = self.config.ExecuteToTheEnd.error_on_timeout
        unknown = {"ename": "NameError", "evalue": f"name '{name}' is not defined"}
        known = [each for each in (stopped, unknown) if (error.ename, error.evalue) == (each["ename"], each["evalue"])]
        return f"{error.ename}: {error.evalue}" if known else "This cell raised an error."


class HideTests(NbGraderPreprocessor):
    """For feedback: takes out the hidden tests."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        hidden = ClearHiddenTests(enforce_metadata=False)
        for index, cell in enumerate(nb.cells):
            hidden.preprocess_cell(cell, resources, index)
        return nb, resources


class ShowPlainText(NbGraderPreprocessor):
    """Leaves of every output only its plain text, which templates escape: no learner's HTML in a teacher's browser."""

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = {"text/plain": str(output.data.get("text/plain", "(a picture or a widget)"))}
                output.metadata = {}
        return cell, resources


def seed_of(root: str | pathlib.Path, student: str, assignment: str, notebook: str) -> str:
    """The seed of the hidden tests: from the course's secret, for one student and notebook, always the same.

    Raises ValueError where the course folder `root` has no file `secret`.
    """
    path = pathlib.Path(root) / "secret"
    if not path.exists():
        raise ValueError(f"{path} is missing. Put it back, or make a new course folder with `autograde course DIR`.")
    whose = f"{student}/{assignment}/{notebook}".encode()
    return hmac.new(path.read_bytes().strip(), whose, hashlib.sha256).hexdigest()


def _extra(step: Step, cells: list) -> NotebookNode:
    return nbformat.v4.new_code_cell(step.source, id=f"added-{len(cells)}")


def _points(output: NotebookNode) -> float:
    try:
        return float(output.data["text/plain"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _text(output: NotebookNode) -> str:
    """What a stream or a display says, as plain text."""
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


@contextlib.contextmanager
def _as_before(folder: pathlib.Path) -> Iterator[None]:
    """Afterwards the folder is what it was: nbgrader copies what lies beside a notebook into the feedback."""
    with tempfile.TemporaryDirectory() as safe:
        shutil.copytree(folder, safe, symlinks=True, dirs_exist_ok=True)
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(safe, folder, symlinks=True, dirs_exist_ok=True)


def _stream(text: str) -> NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def _who(resources: dict) -> dict[str, str]:
    return {key: resources["nbgrader"][key] for key in ("student", "assignment", "notebook")}


def _source_of(coursedir, resources: dict) -> pathlib.Path:
    who = _who(resources)
    folder = pathlib.Path(coursedir.format_path(coursedir.source_directory, ".", who["assignment"]))
    return folder / f"{who['notebook']}.ipynb"
