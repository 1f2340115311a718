"""The learner's own earlier solutions, for chapters that build on them."""

from __future__ import annotations

import ast
import builtins
import json
import pathlib
import symtable
from collections.abc import Callable, Iterator
from typing import Any

from labkit.errors import PlainError

__all__ = ["PartMissing", "own"]

_REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
_IMPORTS = (ast.Import, ast.ImportFrom)


class PartMissing(PlainError):
    """An earlier solution can't be used. The message says why, and what to do."""


def own(name: str, notebook: str, fallback: Callable | None = None, example: tuple | None = None) -> Callable:
    """The learner's solution of exercise `name` in `notebook`, a path such as "01_transformer/04_rope".

    The notebook is looked for around the working folder and in the course's own folder notebooks/. Of it, the setup's
    imports are run (those of autograde aside) and the definitions in the exercise's cell, with those of the earlier
    exercises that it calls. Nothing else in these cells is run: no check, no training, no output.

    fallback: a function that does the same. It is returned, and one printed line says so and why, where the notebook
              isn't there, the exercise isn't solved, its cell raises an error, or it disagrees on the example.
              Without a fallback all of these raise PartMissing, whose message is one sentence.
    example:  arguments on which the solution has to give what `fallback` gives, up to 1e-4: a solution that is still
              wrong would spoil whatever is built on it. It needs a fallback.
    """
    if example is not None and fallback is None:
        raise ValueError("own() compares the example with a fallback, so give one.")
    try:
        function = _solution(name, notebook)
        if example is not None:
            _compare(name, notebook, function, fallback, example)
    except PartMissing as missing:
        if fallback is None:
            raise
        print(f"{name}: the library's, because {_lower(str(missing))}")
        return fallback
    print(f"{name}: yours, from {notebook}.ipynb.")
    return function


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _solution(name: str, notebook: str) -> Callable:
    path = next((path for path in _places(notebook) if path.is_file()), None)
    if path is None:
        raise PartMissing(f"There is no notebook {notebook}.ipynb here.")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        setup, solutions = _cells(cells)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise PartMissing(f"{notebook}.ipynb can't be read as a notebook.") from None
    if name not in solutions:
        raise PartMissing(f"{notebook}.ipynb has no exercise {name}.")
    return _run(name, notebook, setup, solutions)


def _places(notebook: str) -> Iterator[pathlib.Path]:
    """Where a notebook may lie: beside this one, in a sibling folder, below the working folder, in the course."""
    here, wanted = pathlib.Path.cwd(), pathlib.PurePosixPath(f"{notebook}.ipynb")
    yield here.parent / wanted
    yield here / wanted
    yield here / "notebooks" / wanted
    yield _REPOSITORY / "notebooks" / wanted


def _cells(cells: list[dict]) -> tuple[str, dict[str, str]]:
    """The source of the setup cell, and those of the exercises by name: nbgrader's marks say which is which."""
    setup, solutions = "", {}
    for cell in cells:
        marks = cell.get("metadata", {}).get("nbgrader", {})
        source = "".join(cell.get("source", ""))
        if marks.get("solution"):
            solutions[marks["grade_id"]] = source
        elif marks.get("grade_id") == "setup":
            setup = source
    return setup, solutions


def _run(name: str, notebook: str, setup: str, solutions: dict[str, str]) -> Callable:
    """Run the definitions that `name` needs, in the notebook's order, and give the function."""
    namespace: dict[str, Any] = {"__name__": f"own_{name}", "__builtins__": builtins}
    try:
        needed = _needed(name, solutions)
        code = [_only(setup, _IMPORTS)]
        for each in (each for each in solutions if each in needed):
            code.append(_only(solutions[each], _DEFINITIONS))
            if _is_open(code[-1], each):
                told = "" if each == name else f" {name} calls it."
                raise PartMissing(f"{each} isn't solved yet in {notebook}.ipynb.{told}")
        for tree in code:
            exec(compile(tree, f"<{notebook}.ipynb>", "exec"), namespace)
        function = namespace[name]
    except PartMissing:
        raise
    except Exception as error:
        raise PartMissing(f"the cell of {name} in {notebook}.ipynb raises {_told(error)}.") from None
    if not callable(function):
        raise PartMissing(f"{name} in {notebook}.ipynb is no function.")
    return function


def _needed(name: str, solutions: dict[str, str]) -> set[str]:
    """`name` and the exercises that it calls, and those that these call."""
    needed, waiting = set(), [name]
    while waiting:
        each = waiting.pop()
        needed.add(each)
        waiting += (_names(solutions[each]) & solutions.keys()) - needed
    return needed


def _names(source: str) -> set[str]:
    """Every name in a source, at any depth."""
    tables, found = [symtable.symtable(source, "cell", "exec")], set()
    while tables:
        table = tables.pop()
        found |= set(table.get_identifiers())
        tables += table.get_children()
    return found


def _only(source: str, kinds: tuple) -> ast.Module:
    """The statements of these kinds, without imports of autograde: its checks are for the notebook alone."""
    kept = [node for node in ast.parse(source).body if isinstance(node, kinds) and not _is_autograde(node)]
    return ast.Module(kept, type_ignores=[])


def _is_autograde(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] == "autograde"
    return isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "autograde" for alias in node.names)


def _is_open(tree: ast.Module, name: str) -> bool:
    """Whether the definition of `name` still holds the stub, `raise NotImplementedError` with nothing around it."""
    for node in tree.body:
        if getattr(node, "name", "") == name:
            bodies = [inner for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)]
            return any(_is_stub(statement) for function in bodies for statement in function.body)
    return False


def _is_stub(node: ast.stmt) -> bool:
    return isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id == "NotImplementedError"


def _compare(name: str, notebook: str, function: Callable, fallback: Callable, example: tuple) -> None:
    import torch

    wanted = torch.as_tensor(fallback(*example))
    try:
        found = torch.as_tensor(function(*example))
        agrees = found.shape == wanted.shape and torch.allclose(found.to(wanted.dtype), wanted, 1e-4, 1e-4)
    except Exception as error:
        raise PartMissing(f"{name} in {notebook}.ipynb raises {_told(error)}.") from None
    if not agrees:
        raise PartMissing(f"{name} in {notebook}.ipynb gives another result than the library on a small example.")


def _told(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200].rstrip('.')}" if text else type(error).__name__
