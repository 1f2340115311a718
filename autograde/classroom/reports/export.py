"""Scores for a spreadsheet, Canvas, Moodle and Gradescope."""

from __future__ import annotations

import csv
import io
import json
import pathlib

from autograde.classroom.folder import Course
from autograde.classroom.gradebook import report_of
from autograde.classroom.journal import NOTHING, exercises_of, summary_of
from autograde.classroom.roster import Roster, first_and_last, participant
from autograde.classroom.scores import Standing, standings
from autograde.classroom.task import STAMP
from autograde.files import replace


def write_exports(course: Course, section: str, results: dict[str, dict]) -> list[pathlib.Path]:
    """export/SECTION/: grades.csv, canvas.csv, moodle.csv, gradescope/STUDENT/results.json. Gives the paths.

    Everybody is in the tables, with the platforms' own ids where the roster knows them. Raises ValueError where nothing
    is graded.
    """
    if not results:
        raise ValueError(f"Nothing of {section} is graded yet: run `autograde grade {section}` first.")
    everybody = standings(course, section, results)
    folder = course.root / "export" / section
    written = []
    for name, rows in _tables(section, results, everybody, Roster(course)).items():
        replace(folder / name, _as_csv(rows))
        written.append(folder / name)
    for student, result in results.items():
        path = folder / "gradescope" / student / "results.json"
        replace(path, json.dumps(gradescope(result, everybody[student]), indent=2) + "\n")
        written.append(path)
    return written


def _tables(section: str, results: dict[str, dict], everybody: dict[str, Standing], roster: Roster) -> dict[str, list]:
    exercises = list({mark.exercise: None for its in everybody.values() for mark in its.marks})
    total = max(its.most for its in everybody.values())
    full = [["student", "points", "of", "penalty", "graded", *exercises, "what happened"]]
    canvas = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", section]]
    canvas.append(["Points Possible", "", "", "", "", total])
    moodle = [["Identifier", "Full name", "Username", "ID number", "Email address", "Maximum Grade", "Grade"]]
    moodle[0].append("Feedback comments")
    for student, its in everybody.items():
        marks, result, row = its.by_exercise(), results.get(student), roster.row(student)
        told = [marks[name].score if name in marks else 0.0 for name in exercises]
        happened = summary_of(result) if result else NOTHING
        full.append([student, its.total, total, its.penalty, result["graded"] if result else "", *told, happened])
        name, number, login = row.get("name") or student, row.get("sid", ""), row.get("login", "")
        own = "" if row.get("canvas_id") else student  # a made-up id would keep Canvas from finding the right one
        ids = [row.get("canvas_id", ""), number or own, login or own]
        canvas.append([name, *ids, row.get("section", ""), its.total])
        whole = " ".join(part for part in first_and_last(name) if part)
        one = participant(row, section)
        said = f"{its.total:g} of {total:g} points" + (f", {its.penalty:g} less for being late" if its.penalty else "")
        ids = [f"Participant {one}" if one else "", whole, login or student, number, row.get("email", "")]
        moodle.append([*ids, total, its.total, said])
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


def gradescope(result: dict, its: Standing) -> dict:
    """One student's results.json as Gradescope's autograder reads it."""
    tests, marks = [], its.by_exercise()
    for found in exercises_of(result):
        report = report_of(found)
        mark = marks.get(report.exercise)
        tests.append(
            {
                "name": report.exercise,
                "score": mark.score if mark else 0.0,
                "max_score": mark.most if mark else report.points,
                "status": "passed" if report.solved else "failed",
                "output": report.text(),
                "output_format": "text",
                "visibility": "visible",
            }
        )
    notes = [f"This was {STAMP}."] if result["sandbox"] == STAMP else []
    notes += [f"{its.penalty:g} points less for being late."] if its.penalty else []
    return {
        "score": its.total,
        "output": " ".join(notes),
        "visibility": "visible",
        "tests": tests,
    }
