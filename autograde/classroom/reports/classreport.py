"""The class report: scores, the misconceptions that the class holds, and submissions that resemble each other."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter

from autograde.classroom.folder import Course
from autograde.classroom.journal import NOTHING, exercises_of, summary_of
from autograde.classroom.reports.alike import Group, groups
from autograde.classroom.reports.pages import page, table
from autograde.classroom.scores import Standing, standings
from autograde.classroom.task import STAMP
from autograde.files import replace


def write_report(course: Course, section: str, results: dict[str, dict]) -> str:
    """Write reports/SECTION.html; gives its path. Raises ValueError where nothing is graded."""
    if not results:
        raise ValueError(f"Nothing of {section} is graded yet: run `autograde grade {section}` first.")
    path = course.root / "reports" / f"{section}.html"
    replace(path, class_page(section, results, standings(course, section, results)))
    return str(path)


def class_page(section: str, results: dict[str, dict], everybody: dict[str, Standing]) -> str:
    """The report as a page."""
    shares = [everybody[student].total / (everybody[student].most or 1) for student in results]
    missing = len(everybody) - len(results)
    told = f"<p>{len(results)} submissions" + (f"; {missing} handed in nothing" if missing else "") + ".</p>"
    parts = [_stamp(results), told, _scores(shares)]
    parts += ["<h2>Exercise by exercise</h2>", _exercises(results)]
    parts += ["<h2>Misconceptions that the class holds</h2>", *_misconceptions(results)]
    parts += ["<h2>Submissions that resemble each other</h2>", *_alike(results)]
    parts += ["<h2>What was not taken as it stood</h2>", _remarks(results)]
    head = ["student", "points", "of", "less for being late", "graded", "seconds", "what happened"]
    parts += ["<h2>Everybody</h2>", table(head, [_row(its, results.get(s)) for s, its in everybody.items()])]
    return page(f"Class report: {section}", parts)


def _remarks(results: dict[str, dict]) -> str:
    notebooks = [(s, name, notebook) for s, r in sorted(results.items()) for name, notebook in r["notebooks"].items()]
    rows = [(s, name, remark) for s, name, notebook in notebooks for remark in notebook["remarks"]]
    return table(["student", "notebook", ""], rows) if rows else "<p>Every notebook was as the release has it.</p>"


def _row(its: Standing, result: dict | None) -> tuple:
    points = (its.student, its.total, its.most, its.penalty)
    return (
        (*points, result["graded"], result["seconds"], summary_of(result)[:300])
        if result
        else (*points, "", "", NOTHING)
    )


def _stamp(results: dict[str, dict]) -> str:
    loose = sorted(s for s, r in results.items() if r["sandbox"] == STAMP)
    if not loose:
        return ""
    told = f"{', '.join(loose)}: {STAMP}. Their code could have changed its own results."
    return f'<p class="stamp">{html.escape(told)}</p>'


def _scores(shares: list[float]) -> str:
    from labkit import COLORS, figure

    fig, ax = figure(width=7, height=2.8)
    ax.hist([100 * share for share in shares], bins=range(0, 101, 10), color=COLORS[0], edgecolor="white")
    ranked = sorted(shares)
    told = f"Scores: median {ranked[len(ranked) // 2]:.0%}, from {ranked[0]:.0%} to {ranked[-1]:.0%}"
    ax.set(xlabel="percent of the points", ylabel="students", title=told)
    ax.yaxis.get_major_locator().set_params(integer=True)
    return _picture(fig, told) + f"<p>{told}.</p>"


def _exercises(results: dict[str, dict]) -> str:
    rows: dict[str, list] = {}
    for result in results.values():
        for found in exercises_of(result):
            report = found["report"]
            rows.setdefault(report["exercise"], []).append(report)
    lines = []
    for name, reports in rows.items():
        share = sum(r["earned"] for r in reports) / (sum(r["points"] for r in reports) or 1)
        status = Counter(r["status"] for r in reports)
        lines.append((name, f"{share:.0%}", status["solved"], status["wrong"], status["not implemented"]))
    return table(["exercise", "mean", "solved", "wrong", "not tried"], lines)


def misconceptions(results: dict[str, dict]) -> dict[str, Counter]:
    """For each exercise, how many hold which misconception."""
    held: dict[str, Counter] = {}
    for result in results.values():
        for found in exercises_of(result):
            report = found["report"]
            if report["misconception"]:
                held.setdefault(report["exercise"], Counter())[report["misconception"]] += 1
    return held


def _misconceptions(results: dict[str, dict]) -> list[str]:
    from labkit import COLORS, figure

    held = misconceptions(results)
    if not held:
        return ["<p>No known misconception was found.</p>"]
    rows = [(name, says, count) for name, counts in held.items() for says, count in counts.most_common()]
    top = sorted(rows, key=lambda row: -row[2])[:12][::-1]
    fig, ax = figure(width=8, height=0.8 + 0.4 * len(top))
    labels = [f"{name}: {says[:60]}{'…' * (len(says) > 60)}" for name, says, _ in top]
    ax.barh(range(len(top)), [count for *_, count in top], color=COLORS[1])
    ax.set_yticks(range(len(top)), labels, fontsize=8)
    told = f"The most frequent one, {top[-1][0]}: {top[-1][1]} ({top[-1][2]} students)"
    ax.set(xlabel="students", title=f"Most frequent, in {top[-1][0]}: {top[-1][2]} students")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return [_picture(fig, told), table(["exercise", "the result is what comes out when …", "students"], rows)]


def _alike(results: dict[str, dict]) -> list[str]:
    found = groups(results)
    if not found:
        return ["<p>No two submissions resemble each other more than short solutions do anyway.</p>"]
    rows = [(g.notebook, " · ".join(g.students), _span(g), f"{g.usual:.0%}", _same_text(g)) for g in found]
    told = (
        "Names, comments and layout are left out of the comparison. A high number is a reason to look, and no proof: "
        "short functions have few shapes, and people learn together. In a group each resembles at least one other."
    )
    return [f"<p>{told}</p>", table(["notebook", "students", "alike", "usual in this class", "same text"], rows)]


def _span(group: Group) -> str:
    least, most = f"{group.least:.0%}", f"{group.most:.0%}"
    return most if least == most else f"{least} to {most}"


def _same_text(group: Group) -> str:
    if group.same_text == (group.students,):
        return "all"
    return "; ".join(" · ".join(students) for students in group.same_text)


def _picture(fig, alt: str) -> str:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(fig)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<p><img src="data:image/png;base64,{data}" alt="{html.escape(alt)}"></p>'
