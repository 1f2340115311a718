"""Scores for a spreadsheet, Canvas, Moodle and Gradescope."""

from __future__ import annotations

import csv
import io
import json
import pathlib

from autograde.classroom.folder import Course
from autograde.classroom.gradebook import opened, report_of
from autograde.classroom.journal import exercises_of, summary_of
from autograde.classroom.task import STAMP
from autograde.files import replace


def write_exports(course: Course, section: str, results: dict[str, dict]) -> list[pathlib.Path]:
    """export/SECTION/: grades.csv, canvas.csv, moodle.csv, gradescope/STUDENT/results.json. Gives the paths.

    Scores come from the gradebook, so a teacher's manual score counts. Raises ValueError where nothing is graded.
    """
    if not results:
        raise ValueError(f"Nothing of {section} is graded yet: run `autograde grade {section}` first.")
    scores = _scores(course, section, results)
    folder = course.root / "export" / section
    written = []
    for name, rows in _tables(section, results, scores).items():
        replace(folder / name, _as_csv(rows))
        written.append(folder / name)
    for student, result in results.items():
        path = folder / "gradescope" / student / "results.json"
        replace(path, json.dumps(gradescope(result, scores[student]), indent=2) + "\n")
        written.append(path)
    return written


def _scores(course: Course, section: str, results: dict[str, dict]) -> dict[str, dict[str, float]]:
    """What counts, for each student and exercise: the manual score where there is one."""
    found: dict[str, dict[str, float]] = {}
    with opened(course) as gradebook:
        for student, result in results.items():
            scores = {e["report"]["exercise"]: float(e["report"]["earned"]) for e in exercises_of(result)}
            for notebook in gradebook.find_submission(section, student).notebooks:
                by_name = {grade.name.removeprefix("check_"): float(grade.score) for grade in notebook.grades}
                scores |= {name: score for name, score in by_name.items() if name in scores}
            found[student] = scores
    return found


def _tables(section: str, results: dict[str, dict], scores: dict[str, dict[str, float]]) -> dict[str, list[list]]:
    exercises = list({e["report"]["exercise"]: None for r in results.values() for e in exercises_of(r)})
    points = {e["report"]["exercise"]: e["report"]["points"] for r in results.values() for e in exercises_of(r)}
    total = sum(points.values())
    students = sorted(results)
    sums = {s: round(sum(scores[s].values()), 4) for s in students}
    full = [["student", "points", "of", "graded", *exercises, "what happened"]]
    for s in students:
        row = [s, sums[s], total, results[s]["graded"], *(scores[s].get(e, 0.0) for e in exercises)]
        full.append([*row, summary_of(results[s])])
    canvas = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", section]]
    canvas += [["Points Possible", "", "", "", "", total]] + [[s, "", s, s, "", sums[s]] for s in students]
    moodle = [["Username", f"{section} ({total:g})", "Feedback comments"]]
    moodle += [[s, sums[s], f"{sums[s]:g} of {total:g} points"] for s in students]
    return {"grades.csv": full, "canvas.csv": canvas, "moodle.csv": moodle}


def _as_csv(rows: list[list]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[_harmless(value) for value in row] for row in rows])
    return out.getvalue()


def _harmless(value):
    """A text that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return f"{value:g}" if isinstance(value, float) else value


def gradescope(result: dict, scores: dict[str, float]) -> dict:
    """One student's results.json as Gradescope's autograder reads it."""
    tests = []
    for found in exercises_of(result):
        report = report_of(found)
        tests.append(
            {
                "name": report.exercise,
                "score": scores.get(report.exercise, 0.0),
                "max_score": report.points,
                "status": "passed" if report.solved else "failed",
                "output": report.text(),
                "output_format": "text",
                "visibility": "visible",
            }
        )
    note = f"This was {STAMP}." if result["sandbox"] == STAMP else ""
    return {
        "score": round(sum(scores.values()), 4),
        "execution_time": result["seconds"],
        "output": note,
        "visibility": "visible",
        "tests": tests,
    }
