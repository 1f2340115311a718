"""What a check found, as a value, as text and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_COUNT = re.compile(r" \(\d+ of \d+ cases\)$")

# *a word or several*, but no product: a factor has a space or another sign beside its asterisk.
_EMPHASIS = re.compile(r"(?<![\w*)])\*(\w(?:[^*\n]*\w)?)\*(?![\w*(])")

# White text on them, and they on white and on near-black: see the test that computes the contrasts.
GOOD, BAD, NEUTRAL = "#007a5e", "#b3400e", "#6b6b6b"


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. `worth` and `earned` are points."""

    name: str
    passed: bool
    worth: float
    earned: float
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The result of one check.

    `failing` describes the smallest failing case as (what, text) pairs, `error` has the learner's lines and the error,
    where that case ended in one, and `more` says what the learner can ask for next; `notice` stands above everything.
    These are empty in a hidden check, where inputs stay secret, and so are the notes of the lines and what was printed.
    `secret_diagnosis` is the diagnosis for a hidden check, from a closed list (wording.py).
    `status` is one of: solved, wrong, not implemented, no points.
    """

    exercise: str
    points: float
    earned: float
    status: str
    lines: Sequence[Line] = ()
    failing: Sequence[tuple[str, str]] = ()
    diagnosis: str = ""
    hint: str = ""
    misconception: str = ""
    printed: str = ""
    error: str = ""
    more: str = ""
    notice: str = ""
    secret_diagnosis: str = ""

    @property
    def solved(self) -> bool:
        return self.status == "solved"

    @property
    def headline(self) -> str:
        if self.status == "not implemented":
            return f"{self.exercise}: not implemented yet"
        return f"{self.exercise}: {_points(self.earned)} of {_points(self.points)} points"

    def hidden(self) -> Report:
        """The same result without anything that a solution could choose to give away the inputs."""
        bare = ((_COUNT.sub("", line.name), line.passed, line.worth, line.earned) for line in self.lines)
        lines = tuple(Line(*parts) for parts in bare)
        return Report(
            self.exercise,
            self.points,
            self.earned,
            self.status,
            lines,
            (),
            self.secret_diagnosis,
            self.hint,
            self.misconception,
            secret_diagnosis=self.secret_diagnosis,
        )

    def to_dict(self) -> dict:
        """The report as plain numbers, texts, lists and dicts."""
        return asdict(self)

    def text(self) -> str:
        """The report for a terminal."""
        width = max((len(line.name) for line in self.lines), default=0)
        rows = [
            f"  {'pass' if line.passed else 'FAIL'}  {line.name:<{width}}  {_points(line.earned)}/{_points(line.worth)}"
            + (f"  {line.note}" if line.note else "")
            for line in self.lines
        ]
        parts = [self.notice, ""] if self.notice else []
        parts.append(self.headline)
        if self.error:
            parts += ["", f"  {_indented(self.error, 2)}", ""]
        parts += rows
        if self.diagnosis:
            parts += ["", self.diagnosis]
        if self.failing:
            label = max(len(what) for what, _ in self.failing)
            parts += [
                "",
                *(f"  {what:<{label}}  {_indented(text, label + 4)}" for what, text in self.failing),
            ]
        if self.hint:
            parts += ["", f"Hint: {self.hint}"]
        if self.more:
            parts += ["", self.more]
        if self.printed:
            parts += ["", "Your function printed:", f"  {_indented(self.printed.rstrip(), 2)}"]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        # Text has the color of the page, which may be light or dark; a color that says something brings its ground.
        border = {"solved": GOOD, "not implemented": NEUTRAL}.get(self.status, BAD)
        parts = [
            f'<div role="status" style="border-left:4px solid {border};padding:.4em 1em;max-width:60em">',
            f'<p style="margin:.2em 0"><strong>{escaped(self.headline)}</strong></p>',
        ]
        if self.notice:
            parts.insert(1, f'<p style="margin:.2em 0"><strong>{escaped(self.notice)}</strong></p>')
        if self.error:
            parts.append(_pre(self.error))
        if self.lines:
            parts.append(_table(self.lines))
        if self.diagnosis:
            parts.append(f'<p style="margin:.5em 0"><strong>{escaped(self.diagnosis)}</strong></p>')
        if self.failing:
            parts.append('<p style="margin:.5em 0 0">The smallest case that fails:</p>')
            parts.append(_definitions(self.failing))
        if self.hint:
            parts.append(f'<p style="margin:.5em 0"><em>Hint:</em> {escaped(self.hint)}</p>')
        if self.more:
            parts.append(f'<p style="margin:.5em 0">{escaped(self.more)}</p>')
        if self.printed:
            parts.append(f"<details><summary>What your function printed</summary>{_pre(self.printed)}</details>")
        return "".join([*parts, "</div>"])


class Points(float):
    """The points of a check. A notebook shows nothing under the cell for them: the report has just said it.

    nbgrader reads partial credit from the text of the cell's result, which must therefore be the number; Jupyter,
    Colab and VS Code prefer HTML where there is some, and this HTML is empty.
    """

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/plain": repr(float(self)), "text/html": ""}


def _points(value: float) -> str:
    return f"{round(value, 2):g}"


def escaped(text: str) -> str:
    """HTML-safe; `code` between backticks is set as code, *this* as emphasis."""
    pieces = html.escape(text).split("`")
    if len(pieces) % 2 == 0:  # a backtick without its partner
        return html.escape(text)
    return "".join(f"<code>{p}</code>" if i % 2 else _EMPHASIS.sub(r"<em>\1</em>", p) for i, p in enumerate(pieces))


def _pre(text: str) -> str:
    return f'<pre style="margin:0;white-space:pre-wrap;font-size:90%">{html.escape(text)}</pre>'


def _mark(ground: str, text: str) -> str:
    style = f"background:{ground};color:#ffffff;padding:0 .4em;border-radius:.3em;white-space:nowrap"
    return f'<span style="{style}">{text}</span>'


def _table(lines: Sequence[Line]) -> str:
    cell = 'style="text-align:left;padding:.15em .8em .15em 0;background:none"'
    rows = []
    for line in lines:
        mark = _mark(GOOD, "✓ pass") if line.passed else _mark(BAD, "✗ fail")
        note = f"<br><small>{escaped(line.note)}</small>" if line.note else ""
        rows.append(
            f"<tr style='background:none'><td {cell}>{mark}</td><td {cell}>{escaped(line.name)}{note}</td>"
            f"<td {cell}>{_points(line.earned)} / {_points(line.worth)}</td></tr>"
        )
    head = f"<tr style='background:none'><th {cell}></th><th {cell}>what is checked</th><th {cell}>points</th></tr>"
    return f'<table style="border:none;margin:.3em 0">{head}{"".join(rows)}</table>'


def _definitions(pairs: Sequence[tuple[str, str]]) -> str:
    cell = 'style="text-align:left;vertical-align:top;padding:.15em .8em .15em 0;background:none"'
    rows = "".join(
        f"<tr style='background:none'><td {cell}>{html.escape(what)}</td><td {cell}>{_pre(text)}</td></tr>"
        for what, text in pairs
    )
    return f'<table style="border:none;margin:.2em 0">{rows}</table>'


def _indented(text: str, by: int) -> str:
    return text.replace("\n", "\n" + " " * by)
