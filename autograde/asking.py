"""Which exercise somebody means who hands something to `check`, `hint` or `failing`; and if none, what to say."""

from __future__ import annotations

import ast
import difflib
import linecache
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePath
from types import FrameType
from typing import Any

from autograde.exercise import Exercise
from autograde.exercises import find, names, order
from autograde.judging.calls import functions_of
from autograde.judging.comparing import describe

MISSING = object()  # stands for an argument that was not given


def exercise_of(thing: Any, frame: FrameType, asks: str) -> tuple[Exercise | None, str]:
    """The exercise that `thing` belongs to, or None and one sentence.

    It is found by the name of the function or class, or of the variable in the frame that holds it. `asks` is the
    function that wants to know ("check"), as the sentence names it. `hint` and `failing` also take the name as a text.
    """
    known, scope = names(), {**frame.f_globals, **frame.f_locals}
    own = getattr(thing, "__name__", "") if callable(thing) else thing if isinstance(thing, str) else ""
    if own in known and not (asks == "check" and isinstance(thing, str)):
        return find(own), ""
    held = next((name for name, value in scope.items() if value is thing and name in known), None)
    if held and callable(thing) and type(thing).__name__ not in known:
        return find(held), ""
    return None, f"{asks}: {_sentence(thing, own, held, scope, asks, _source(frame))}"


def _sentence(thing: Any, own: str, held: str | None, scope: dict, asks: str, line: str) -> str:
    known, kind = names(), type(thing).__name__
    if kind in known:
        return f"pass the class itself, `{asks}({kind})`, not an object made of it."
    if held:
        return f"`{held}` is {describe(thing)} by now, and no function: run the cell with `def {held}` again."
    if isinstance(thing, str) and own in known:
        return f"pass the function itself, without quotes: `{asks}({own})`."
    called = re.findall(rf"\b{asks}\(\s*(\w+)\s*\(", line) if line.count(f"{asks}(") == 1 else []
    if called and called[0] in known:
        return f"pass the function itself, `{asks}({called[0]})`, and not what it gives, which is {describe(thing)}."
    chapter = chapter_of(scope)
    here = list(order(chapter) if chapter else known)
    whose = "this chapter's" if chapter else "the course's"
    near = _nearest(own, here)
    if own:
        told = f"`{own}` is none of {whose} exercises, which are found by their names."
        return f"{told} Did you mean `{asks}({near})`?" if near else f"{told}{_list(here if chapter else [])}"
    got = "" if thing is MISSING else f", and not {describe(thing)}"
    return f"pass the function of an exercise, as in `{asks}({here[0]})`{got}.{_list(here if chapter else [])}"


def _list(here: list[str]) -> str:
    return f" The exercises here are {', '.join(f'`{name}`' for name in here)}." if here else ""


def _nearest(name: str, among: Iterable[str]) -> str | None:
    def bare(text: str) -> str:
        return text.lower().replace("_", "")

    by_bare = {bare(one): one for one in among}
    found = difflib.get_close_matches(bare(name), by_bare, 1, 0.5)
    return by_bare[found[0]] if found else None


def _source(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def chapter_of(scope: dict[str, Any]) -> str | None:
    """The chapter of the notebook with these global names ("transformer.rope"), as far as that can be known.

    Jupyter and VS Code tell the notebook's file. Elsewhere it is the chapter most of whose exercises are defined.
    """
    known = names()
    path = PurePath(str(scope.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", "")))
    parts = [re.sub(r"^\d+_", "", part) for part in path.with_suffix("").parts[-2:]] if path.name else []
    told = next((c for c in (".".join(parts), "".join(parts[-1:])) if c in known.values()), None)
    counted = Counter(known[name] for name, value in scope.items() if name in known and callable(value))
    return told or next((chapter for chapter, _ in counted.most_common(1)), None)


def unrun(implementation: Callable, name: str) -> str:
    """One sentence where the last cell with the definition of `name` did not run, so that an older one's is judged.

    Read from what IPython remembers of the executed cells; empty outside of it. A cell that was edited and never
    executed is unknown to the kernel.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    functions = functions_of(implementation)
    if shell is None or not functions:
        return ""
    defines = re.compile(rf"^(?:async\s+def|def|class)\s+{re.escape(name)}\b", re.MULTILINE)
    cells = [_transformed(shell, cell) for cell in shell.user_ns.get("_ih", ()) if defines.search(cell)]
    judged = "".join(linecache.getlines(functions[0].__code__.co_filename)).strip()
    if judged not in cells[:-1] or judged == cells[-1]:
        return ""
    why = "an error came before the definition"
    try:
        ast.parse(cells[-1])
    except SyntaxError as error:
        why = f"{type(error).__name__}: {error.msg}, line {error.lineno}"
    return f"The last version of the cell with `{name}` did not run ({why}): this judges the older one."


def _transformed(shell, cell: str) -> str:
    try:
        return shell.transform_cell(cell).strip()
    except SyntaxError:
        return cell.strip()
