"""HTML for learners and teachers, made from results. Everything that came from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from autograde.classroom.folder import Course
from autograde.classroom.gradebook import report_of
from autograde.classroom.scores import Standing, standings
from autograde.classroom.task import STAMP
from autograde.files import replace

_STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}pre{white-space:pre-wrap;background:#f6f6f6;padding:.6rem}
table{border-collapse:collapse}th,td{text-align:left;padding:.2rem .9rem .2rem 0;vertical-align:top}
td.n,th.n{text-align:right}.stamp{background:#fff3cd;padding:.5rem .8rem}img{max-width:100%}"""

_DROPPED = "<p>This exercise counts for nobody.</p>"


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
    count, everybody = 0, standings(course, section, results)
    for student, result in results.items():
        for name, notebook in result["notebooks"].items():
            text = feedback_page(section, name, notebook, result["sandbox"], everybody[student])
            replace(course.root / "feedback" / student / section / f"{name}.html", text)
            count += 1
    return count


def feedback_page(section: str, name: str, notebook: dict, sandbox: str, its: Standing) -> str:
    """One notebook's feedback: scores, laws, diagnoses, hints; no hidden input. `its` is what counts."""
    marks = {mark.exercise: mark for mark in its.marks if mark.notebook == name}
    who = html.escape(f"{its.student}, {section}")
    score, most = its.of(name)
    parts = [f"<p>{who}: <strong>{score:g} of {most:g} points</strong></p>"]
    if penalty := dict(its.penalties).get(name):
        parts.append(f"<p>{round(penalty, 4):g} points were taken off because it came late.</p>")
    parts.append(f"<p>In all of {html.escape(section)}: {its.total:g} of {its.most:g} points.</p>")
    if notebook["remarks"]:
        told = "".join(f"<li>{html.escape(remark)}</li>" for remark in notebook["remarks"])
        parts.append(f"<p>About your notebook:</p><ul>{told}</ul>")
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
        mark = marks.get(report.exercise)
        if mark and mark.most != report.points:
            parts.append(f"<p>It counts {mark.score:g} of {mark.most:g} points.</p>" if mark.most else _DROPPED)
        if mark and mark.manual is not None:
            parts.append(f"<p>Your teacher gave {mark.manual:g} points.</p>")
        if mark and mark.extra:
            parts.append(f"<p>Your teacher added {mark.extra:g} points.</p>")
        if mark and mark.comment:
            parts.append(f"<p>Your teacher writes:</p><pre>{html.escape(mark.comment)}</pre>")
    return page(name, parts)
