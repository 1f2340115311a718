"""The learner's own earlier solutions, for chapters that build on them."""

from __future__ import annotations

import ast
import builtins
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from labkit.errors import PlainError
from labkit.notebook import Reading, Unreadable, cells_of, compiled, grade_id, is_open, marks_of

__all__ = ["PartMissing", "own"]

_REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


class PartMissing(PlainError):
    """An earlier solution can't be used. The message says why, and what to do."""


def own(name: str, notebook: str, fallback: Callable | None = None, example: tuple | None = None) -> Callable:
    """The learner's solution of exercise `name` in `notebook`, a path such as "01_transformer/04_rope".

    The notebook is looked for around the working folder and in the course's own folder notebooks/. Of it, the
    exercise's definition is run, and the imports, definitions and assignments that this needs, in whatever cells they
    stand. Nothing else is run: no check, no training, no output. How cells are read is in `labkit.notebook`.

    fallback: a function that does the same. It is returned, and one printed line says so and why, where the notebook
              isn't there, the exercise isn't solved, its cell raises an error, or it disagrees on the example.
              Without a fallback all of these raise PartMissing, whose message is one sentence.
    example:  arguments on which the solution has to give what `fallback` gives, up to 1e-4: a solution that is still
              wrong would spoil whatever is built on it. It needs a fallback.
    """
    if example is not None and fallback is None:
        raise ValueError("own() compares the example with a fallback, so give one.")
    try:
        function, note = _solution(name, notebook)
        if example is not None:
            _compare(name, notebook, function, fallback, example)
    except PartMissing as missing:
        if fallback is None:
            raise
        print(f"{name}: the library's, because {_lower(str(missing))}")
        return fallback
    print(f"{name}: yours, from {notebook}.ipynb{f' ({note})' if note else ''}.")
    return function


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _solution(name: str, notebook: str) -> tuple[Callable, str]:
    """(the function, what there is to tell about its cell)."""
    path = next((path for path in _places(notebook) if path.is_file()), None)
    if path is None:
        raise PartMissing(f"There is no notebook {notebook}.ipynb here.")
    try:
        cells = cells_of(path.read_bytes())
    except (OSError, Unreadable) as error:
        why = error.strerror if isinstance(error, OSError) else _lower(str(error)).rstrip(".")
        raise PartMissing(f"{notebook}.ipynb can't be read: {why}.") from None
    marked = [grade_id(cell) for cell in cells if marks_of(cell).get("solution")]
    reading = Reading(cells, dict.fromkeys([*marked, name]))
    return _run(name, notebook, reading), reading.notes.get(name, "")


def _places(notebook: str) -> Iterator[pathlib.Path]:
    """Where a notebook may lie: beside this one, in a sibling folder, below the working folder, in the course."""
    here, wanted = pathlib.Path.cwd(), pathlib.PurePosixPath(f"{notebook}.ipynb")
    yield here.parent / wanted
    yield here / wanted
    yield here / "notebooks" / wanted
    yield _REPOSITORY / "notebooks" / wanted


def _run(name: str, notebook: str, reading: Reading) -> Callable:
    """Run the definitions that `name` needs, in the notebook's order, and give what it stands for then."""
    namespace: dict[str, Any] = {"__name__": f"own_{name}", "__builtins__": builtins}
    needed = reading.needed([name], reading.chosen.get(name, len(reading.cells)))
    defined = frozenset().union(*(one.names for one in needed))
    known = defined if reading.lost_marks else defined & reading.exercises
    for each in sorted(known, key=name.__ne__):
        if any(is_open([one.node], each) for one in needed):
            told = "" if each == name else f" {name} calls it."
            raise PartMissing(f"{each} isn't solved yet in {notebook}.ipynb.{told}")
    try:
        if not any(name in one.names for one in needed):
            if name not in reading.chosen:
                raise PartMissing(f"{notebook}.ipynb has no exercise {name}.")
            compiled(reading.text_of(name), "a cell")
            raise PartMissing(f"the cell of {name} in {notebook}.ipynb defines no {name}.")
        for one in needed:
            exec(compile(ast.Module([one.node], []), f"<{notebook}.ipynb>", "exec"), namespace)
        function = namespace[name]
    except PartMissing:
        raise
    except Exception as error:
        raise PartMissing(f"the cell of {name} in {notebook}.ipynb raises {_told(error)}.") from None
    if not callable(function):
        raise PartMissing(f"{name} in {notebook}.ipynb is no function.")
    return function


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
