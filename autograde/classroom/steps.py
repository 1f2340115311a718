"""The steps that make nbgrader's own run trust only what a learner may write.

nbgrader executes the submitted notebook and believes its outputs. These preprocessors hand it a notebook made from the
teacher's source instead, and believe an output only where it is a number of points.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pathlib

import nbformat
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions, Execute, NbGraderPreprocessor

# Cells that exercises never depend on: grading leaves them out.
_SKIPPED = {"demo", "claim", "payoff"}


class TakeOnlySolutions(NbGraderPreprocessor):
    """Replaces a submission by the source notebook with the learner's solution cells in it.

    Taken from the submission: the text of cells whose grade_id is that of a solution cell (the first of each), and the
    code cells that the learner added. All else (tests, points, tags, metadata, order) comes from the source.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        source = nbformat.read(_source_of(self.parent.coursedir, resources), as_version=4)
        _set_seed(self.parent.coursedir, resources)
        ClearSolutions().preprocess(source, resources)
        solutions, helpers = _submitted(nb, source)
        cells = []
        for cell in source.cells:
            if _SKIPPED & set(cell.metadata.get("tags", [])):
                continue
            name = _grade_id(cell)
            if name in solutions and cell.metadata.nbgrader.solution:
                cell.source = solutions[name]
            cells += [cell, *helpers.get(name, [])] if name else [cell]
        source.cells = cells
        return source, resources


class ExecuteToTheEnd(Execute):
    """nbgrader's Execute, for which a kernel that dies costs the cells that follow and not the whole submission."""

    def preprocess(self, nb: NotebookNode, resources: dict, km=None) -> tuple[NotebookNode, dict]:
        try:
            return super().preprocess(nb, resources, km)
        except DeadKernelError:
            return nb, resources


class BelieveNumbersOnly(NbGraderPreprocessor):
    """Makes a check cell's output what nbgrader's reading of it should be.

    A warning on stderr costs nothing. A check that did not end in exactly one number between 0 and its points, an
    error included, is worth 0.
    """

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            results = [o for o in cell.outputs if o.output_type == "execute_result"]
            points = _points(results[0]) if len(results) == 1 else None
            kept = [o for o in cell.outputs if o.output_type in ("display_data", "error") or o.get("name") == "stdout"]
            if points is None or not 0 <= points <= float(cell.metadata.nbgrader.points) or _failed(cell):
                points = 0.0
            kept = [o for o in kept if o.output_type != "error"]
            cell.outputs = [*kept, nbformat.v4.new_output("execute_result", {"text/plain": str(points)})]
        return cell, resources


class ShowNoSecrets(NbGraderPreprocessor):
    """For feedback: hidden tests are taken out, and outputs are shown as plain text, which the template escapes."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        hidden = ClearHiddenTests(enforce_metadata=False)
        for index, cell in enumerate(nb.cells):
            hidden.preprocess_cell(cell, resources, index)
            for output in cell.get("outputs", []):
                if "data" in output:
                    output.data = {k: v for k, v in output.data.items() if k == "text/plain"}
        return nb, resources


def _submitted(nb: NotebookNode, source: NotebookNode) -> tuple[dict[str, str], dict[str, list[NotebookNode]]]:
    """The learner's solutions by grade_id, and the code cells they added, by the grade_id of the cell before."""
    known = {_grade_id(cell): cell for cell in source.cells if _grade_id(cell)}
    ours = {cell.get("id") for cell in source.cells}
    solutions: dict[str, str] = {}
    helpers: dict[str, list[NotebookNode]] = {}
    last = "setup"
    for number, cell in enumerate(nb.cells):
        name = _grade_id(cell)
        if name in known:
            last = name
            if cell.cell_type == "code":
                solutions.setdefault(name, cell.source)
        elif cell.cell_type == "code" and not name and cell.get("id") not in ours and not _is_ours(cell):
            helper = nbformat.v4.new_code_cell(cell.source, id=f"added-{number}")
            helpers.setdefault(last, []).append(helper)
    return solutions, helpers


def _is_ours(cell: NotebookNode) -> bool:
    return bool(_SKIPPED & set(cell.metadata.get("tags", [])))


def _grade_id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def _failed(cell: NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.outputs)


def _points(output: NotebookNode) -> float | None:
    try:
        return float(output.data["text/plain"])
    except (KeyError, TypeError, ValueError):
        return None


def _source_of(coursedir, resources: dict) -> pathlib.Path:
    this = resources["nbgrader"]
    folder = pathlib.Path(coursedir.format_path(coursedir.source_directory, ".", this["assignment"]))
    return folder / f"{this['notebook']}.ipynb"


def _set_seed(coursedir, resources: dict) -> None:
    """The seed of the hidden tests, for the kernel: from the course's secret, the student and the notebook."""
    secret = (pathlib.Path(coursedir.root) / "secret").read_bytes().strip()
    this = resources["nbgrader"]
    whose = f"{this['student']}/{this['assignment']}/{this['notebook']}".encode()
    os.environ["AUTOGRADE_SEED"] = hmac.new(secret, whose, hashlib.sha256).hexdigest()
    os.environ["LABKIT_NO_PROGRESS"] = "1"
