"""One notebook of two: what a released and a solved notebook have in common runs once, the rest once for each."""

from __future__ import annotations

from nbformat import NotebookNode, from_dict, v4

from autograde.authoring.scopes import read_inside, used_and_defined

RUNS = ("released", "solved")
_MAY_RAISE = "raises-exception"


def paired(released: NotebookNode, solved: NotebookNode) -> NotebookNode:
    """The code cells of both notebooks, which differ in nothing but solutions, as one notebook for one kernel.

    A cell that is the same in both and leans on nothing that differs runs once, among the names that both agree on: one
    that leaned on an exercise in a way that the source doesn't show would find nothing there. Every other cell runs
    twice, first as released, then as solved, each among the names of its own run (lineages.py). Only in the released
    run may a payoff raise.
    """
    made = v4.new_notebook(metadata=solved.metadata, cells=[v4.new_code_cell("%load_ext autograde.authoring.lineages")])
    pairs = [pair for pair in zip(released.cells, solved.cells, strict=True) if pair[0].cell_type == "code"]
    for (before, after), apart in zip(pairs, _run_apart(pairs), strict=True):
        for runs, cell in [(RUNS[:1], before), (RUNS[1:], after)] if apart else [(RUNS, after)]:
            made.cells += [v4.new_code_cell(f"%lineage {runs[0] if apart else 'both'}"), _copy(cell, runs)]
    return made


def split(executed: NotebookNode) -> dict[str, NotebookNode]:
    """The code cells of the released and of the solved notebook, with the outputs of a paired one that was run."""
    return {
        run: v4.new_notebook(cells=[cell for cell in executed.cells if run in cell.metadata.get("runs", ())])
        for run in RUNS
    }


def _copy(cell: NotebookNode, runs: tuple[str, ...]) -> NotebookNode:
    made = from_dict(cell)
    made.id, made.metadata["runs"] = f"{runs[0]}-{cell.id}", list(runs)
    if "solved" in runs:
        made.metadata["tags"] = [tag for tag in made.metadata.get("tags", []) if tag != _MAY_RAISE]
    return made


def _run_apart(pairs: list[tuple[NotebookNode, NotebookNode]]) -> list[bool]:
    """Whether a cell needs two runs: it differs itself, or it reads a name whose value does."""
    answers, differing, inside = [], set(), {}
    for before, after in pairs:
        reads, binds = used_and_defined(after.source)
        answers.append(before.source != after.source or bool(_reached(reads, inside) & differing))
        differing = differing | binds if answers[-1] else differing - binds
        inside |= read_inside(after.source)
    return answers


def _reached(names: set[str], inside: dict[str, set[str]]) -> set[str]:
    """`names`, and what the functions and classes among them read when they are used, and so on."""
    found, waiting = set(), set(names)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= inside.get(name, set()) - found
    return found
