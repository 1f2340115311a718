"""`reset(fn)`, `history(fn)` and `reveal(fn)`: the stub back, earlier texts back, the course's own solution."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable

from autograde.answers import Answer, brought_back, revealed
from autograde.asking import MISSING, exercise_of
from labkit import history as kept
from labkit.display import kernel_shell, show_html


def reset(exercise: Callable | str = MISSING, back: int = 0) -> None:
    """Bring an exercise's stub back, or with `back` a text of yours that was put away.

    exercise: the learner's function or class, or its name.
    back:     0 is the stub, 1 the text that was put away last, 2 the one before; `history(exercise)` lists them.

    What the exercise's cell held when it last ran is put away first, in a file on this machine: of each exercise the
    last 20 texts, with the time. In Jupyter what comes back stands in a new cell under this one, elsewhere it is
    printed. Nothing is run, and no cell is changed.
    """
    found, sentence = exercise_of(exercise, inspect.currentframe().f_back, "reset")
    _show(Answer(sentence) if found is None else brought_back(found.name, _last_text(found.name), back))


def history(exercise: Callable | str = MISSING) -> None:
    """List the texts of an exercise that were put away by `reset`, the newest first, with time and length.

    `exercise` is the learner's function or class, or its name. `reset(exercise, back=2)` brings back number 2.
    """
    found, sentence = exercise_of(exercise, inspect.currentframe().f_back, "history")
    if found is None:
        return _show(Answer(sentence))
    versions = kept.versions(found.name)
    if not versions:
        return _show(Answer(f"Nothing of {found.name} was put away yet: `reset({found.name})` does it."))
    rows = [
        f"{number:>3}  {version.time}  {len(version.text.splitlines()):>4} lines"
        for number, version in enumerate(reversed(versions), start=1)
    ]
    return _show(Answer(f"`reset({found.name}, back=1)` brings back the first of these.", shown="\n".join(rows)))


def reveal(exercise: Callable | str = MISSING, anyway: bool = False) -> None:
    """Show the course's solution of an exercise. It is not run, and goes into no cell.

    exercise: the learner's function or class, or its name.
    anyway:   without an honest try, that is a check that has run a solution of yours and found it wrong.

    The map of the course says of an exercise that its solution was revealed before it was solved.
    """
    found, sentence = exercise_of(exercise, inspect.currentframe().f_back, "reveal")
    _show(Answer(sentence) if found is None else revealed(found.name, anyway))


def _show(answer: Answer) -> None:
    shell = kernel_shell()
    if answer.code is not None and _inserts_cells(shell):
        shell.set_next_input(answer.code)
    elif answer.code is not None:
        answer = Answer(answer.says, shown=answer.code)
    if not show_html(answer.as_html(), answer.text()):
        print(answer.text())


def _inserts_cells(shell) -> bool:
    """Whether the notebook puts a cell where the kernel asks for one: Jupyter's own do, Colab and VS Code may not."""
    elsewhere = "google.colab" in sys.modules or (shell is not None and "__vsc_ipynb_file__" in shell.user_ns)
    return shell is not None and bool(os.environ.get("JPY_SESSION_NAME")) and not elsewhere


def _last_text(name: str) -> str:
    """The last executed cell that defines `name`, as IPython remembers it, or an empty text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    defines = re.compile(rf"^(?:async\s+def|def|class)\s+{re.escape(name)}\b", re.MULTILINE)
    raw = shell.history_manager.input_hist_raw if shell is not None else []
    return next((cell for cell in reversed(raw) if defines.search(cell)), "")
