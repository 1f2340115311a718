"""What a learner who asks for a stub, an earlier text or a solution gets, as a value. It needs no torch.

`autograde.keeping` shows it in a notebook, and JupyterLab's buttons by way of `autograde.buttons`.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from autograde import reference
from autograde.report import escaped
from labkit import history as kept
from labkit import progress


@dataclass(frozen=True)
class Answer:
    """What was done, in a sentence or two; `code` is to be put into a cell, `shown` is only to be read."""

    says: str
    code: str | None = None
    shown: str = ""

    def text(self) -> str:
        return f"{self.says}\n\n{self.shown}" if self.shown else self.says

    def as_html(self) -> str:
        said = "".join(f'<p style="margin:.2em 0">{escaped(line)}</p>' for line in self.says.split("\n"))
        block = f'<pre style="white-space:pre;overflow-x:auto">{html.escape(self.shown)}</pre>' if self.shown else ""
        return f'<div role="status">{said}{block}</div>'


def brought_back(name: str, text: str, back: int = 0) -> Answer:
    """The stub of exercise `name`, or an earlier text; `text`, what the cell holds now, is put away first."""
    versions = kept.versions(name)
    if back not in range(len(versions) + 1):
        held = f"{len(versions)} of {name}" if versions else f"nothing of {name}"
        return Answer(f"`back` counts what was put away, from 1 for the newest: here that is {held}.")
    try:
        stub = reference.stub(name)
    except KeyError:
        return Answer(f"The stub of {name} is not in this copy of the course. Nothing was changed.")
    code = versions[-back].text if back else stub
    if text.strip() == code.strip():
        return Answer(f"{name}: this is what the cell holds already. Nothing was changed.")
    what = f"your text of {versions[-back].time}" if back else "the stub"
    if text.strip() in ("", stub.strip()):
        return Answer(f"{name}: here is {what}.", code)
    how_long = kept.keep(name, text)
    if not how_long:
        return Answer(f"{name}: the text is too long to be put away, so nothing was changed.")
    only = "" if how_long == "always" else " as long as this kernel runs"
    last = next((n for n, v in enumerate(reversed(kept.versions(name)), start=1) if v.text == text), 1)
    told = f"Your text is kept{only}: `reset({name}, back={last})` brings it back."
    return Answer(f"{name}: here is {what}. {told}", code)


def revealed(name: str, anyway: bool = False) -> Answer:
    """The course's solution of exercise `name` where it may be shown, or why not."""
    solution = reference.solution(name)
    if solution is None:
        return Answer("Solutions are not shown in this course.")
    if not (anyway or progress.attempts(name).tried or progress.is_solved(name)):
        return Answer(
            f"Try {name} first: a solution is shown once `check({name})` has run one of yours and found it wrong.\n"
            f"`reveal({name}, anyway=True)` shows it all the same, and the map will say so."
        )
    progress.record_reveal(name)
    return Answer(f"A solution of {name}, the course's own. Read it, then write yours without looking.", shown=solution)
