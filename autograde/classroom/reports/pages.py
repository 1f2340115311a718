"""HTML for learners and teachers, made from results. Everything that came from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from autograde.classroom.folder import Course
from autograde.classroom.gradebook import opened, report_of
from autograde.classroom.journal import earned, most
from autograde.classroom.task import STAMP
from autograde.files import replace

_STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}pre{white-space:pre-wrap;background:#f6f6f6;padding:.6rem}
table{border-collapse:collapse}th,td{text-align:left;padding:.2rem .9rem .2rem 0;vertical-align:top}
td.n,th.n{text-align:right}.stamp{background:#fff3cd;padding:.5rem .8rem}img{max-width:100%}"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page. `parts` are HTML; no script runs in it, whatever they hold."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            'img-src data:">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>",
            f"<h1>{html.escape(title)}</h1>",
            *parts,
            "</body>\n</html>\n",
        ]
    )


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table; numbers stand to the right, and every cell is escaped."""

    def cell(tag: str, value) -> str:
        if isinstance(value, (int, float)):
            return f'<{tag} class="n">{value:g}</{tag}>'
        return f"<{tag}>{html.escape(str(value))}</{tag}>"

    lines = ["<tr>" + "".join(cell("th", name) for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(cell("td", value) for value in row) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


def write_feedback(course: Course, section: str, results: dict[str, dict]) -> int:
    """feedback/STUDENT/SECTION/NOTEBOOK.html for each student of `results`; gives the number of pages."""
    count = 0
    with opened(course) as gradebook:
        for student, result in results.items():
            said = _by_hand(gradebook, section, student)
            for name, notebook in result["notebooks"].items():
                text = feedback_page(student, section, name, notebook, result["sandbox"], said)
                replace(course.root / "feedback" / student / section / f"{name}.html", text)
                count += 1
    return count


def feedback_page(student: str, section: str, name: str, notebook: dict, sandbox: str, said: dict) -> str:
    """One notebook's feedback: scores, laws, diagnoses, hints; no hidden input. `said` is what a teacher changed."""
    one = {"notebooks": {name: notebook}}
    by_hand = {key[1]: value for key, value in said.items() if key[0] == name}
    score = earned(one) + sum(v["score"] - v["auto"] for v in by_hand.values() if v["score"] is not None)
    who = html.escape(f"{student}, {section}")
    parts = [f"<p>{who}: <strong>{score:g} of {most(one):g} points</strong></p>"]
    if sandbox == STAMP:
        parts.append(f'<p class="stamp">This was {STAMP}.</p>')
    if notebook["problem"]:
        parts.append(f"<p><strong>{html.escape(notebook['problem'])}</strong></p>")
    for cell in notebook["cells"]:
        parts.append(f"<p>When your notebook was run, {html.escape(cell['cell'])} went wrong:</p>")
        parts.append(f"<pre>{html.escape(cell['happened'])}</pre>")
    for found in notebook["exercises"]:
        report = report_of(found)
        parts.append(f"<h2>{html.escape(report.exercise)}</h2>{report._repr_html_()}")
        if found.get("told"):  # a result of an earlier version has none
            parts.append(f"<p>{html.escape(found['told'])}</p>")
        manual = by_hand.get(f"check_{report.exercise}")
        if manual and manual["score"] is not None:
            parts.append(f"<p>Your teacher gave {manual['score']:g} points.</p>")
        if manual and manual["comment"]:
            parts.append(f"<p>Your teacher writes:</p><pre>{html.escape(manual['comment'])}</pre>")
    return page(name, parts)


def _by_hand(gradebook, section: str, student: str) -> dict:
    """(notebook, cell) -> score and comment that a teacher gave in formgrader."""
    from nbgrader.api import MissingEntry

    try:
        submission = gradebook.find_submission(section, student)
    except MissingEntry:
        return {}
    found = {}
    for notebook in submission.notebooks:
        comments = {c.name.removeprefix("check_"): c.comment for c in notebook.comments if c.comment}
        for grade in notebook.grades:
            name = grade.name.removeprefix("check_")
            manual = None if grade.manual_score is None else float(grade.manual_score)
            if manual is not None or name in comments:
                found[notebook.name, grade.name] = {
                    "score": manual,
                    "auto": float(grade.auto_score or 0),
                    "comment": comments.get(name, ""),
                }
    return found
