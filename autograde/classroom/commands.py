"""What a teacher runs: `autograde release|collect|grade|feedback|report|export SECTION`."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

from autograde.classroom.folder import Course


def add_commands(commands) -> None:
    """Add the teacher's commands to the `autograde` command's subparsers."""
    _command(commands, "release", _release, "make release/SECTION, what learners get, and enter it in the gradebook")
    collect = _command(commands, "collect", _collect, "take submissions from a folder or a zip file")
    collect.add_argument(
        "source", type=pathlib.Path, metavar="FROM", help="a folder or zip file with a folder for each student"
    )
    grade = _command(commands, "grade", _grade, "run the submissions in a sandbox and put the scores in the gradebook")
    grade.add_argument("--student", action="append", default=[], help="only this one; can be given again")
    grade.add_argument("--notebook", default="", help="only this one")
    grade.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, metavar="N", help="students at a time")
    grade.add_argument("--scheduler", default="", metavar="tcp://HOST:PORT", help="use the Dask cluster there")
    grade.add_argument("--regrade", action="store_true", help="grade again what is graded")
    grade.add_argument(
        "--unsafe-no-sandbox", action="store_true", help="run learners' code as yourself; every report will say so"
    )
    for name, run, told in (
        ("feedback", _feedback, "write feedback/STUDENT/SECTION/*.html"),
        ("report", _report, "write reports/SECTION.html: scores, misconceptions, similarity"),
        ("export", _export, "write export/SECTION: CSV, Canvas, Moodle, Gradescope"),
    ):
        _command(commands, name, run, told)


def _command(commands, name: str, run, told: str):
    parser = commands.add_parser(name, help=told, description=told)
    parser.add_argument("section", metavar="SECTION", help="its name or the beginning of it, such as 01")
    parser.add_argument("--course", type=pathlib.Path, default=pathlib.Path(), metavar="DIR", help="the course folder")
    parser.set_defaults(run=run)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _release(options) -> int:
    from autograde.classroom.gradebook import api_of

    course = Course(options.course)
    section = course.section(options.section)
    result = api_of(course).generate_assignment(section, force=True)
    if not result["success"]:
        lines = f"{result.get('log') or ''}\n{result.get('error') or ''}".splitlines()
        causes = [line for line in lines if "Error" in line and "NbGrader" not in line] or ["it did not say why"]
        raise ValueError(f"nbgrader could not release {section}: {causes[-1].strip()}")
    notebooks = [of.name for of in course.outlines(section)]
    print(f"release/{section} is ready with {len(notebooks)} notebooks: hand that folder out.")
    return 0


def _collect(options) -> int:
    from autograde.classroom.collect import collect

    course = Course(options.course)
    section = course.section(options.section)
    found = collect(course, section, options.source)
    for line in found.left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{len(found.new)} students with something new, {len(found.same)} without.")
    return 0


def _grade(options) -> int:
    from autograde.classroom.run import grade_section

    course = Course(options.course)
    grade_section(
        course,
        course.section(options.section),
        students=options.student,
        notebook=options.notebook,
        jobs=options.jobs,
        scheduler=options.scheduler,
        regrade=options.regrade,
        unsafe=options.unsafe_no_sandbox,
    )
    return 0


def _results(options) -> tuple[Course, str, dict[str, dict]]:
    from autograde.classroom.journal import Journal

    course = Course(options.course)
    section = course.section(options.section)
    results = Journal(course, section).latest()
    if not results:
        raise ValueError(f"Nothing of {section} is graded yet: run `autograde grade {section}` first.")
    return course, section, results


def _feedback(options) -> int:
    from autograde.classroom.reports.pages import write_feedback

    course, section, results = _results(options)
    count = write_feedback(course, section, results)
    print(f"feedback/*/{section} has {count} pages for {len(results)} students.")
    return 0


def _report(options) -> int:
    from autograde.classroom.reports.classreport import write_report

    print(f"Open {write_report(*_results(options))} in a browser.")
    return 0


def _export(options) -> int:
    from autograde.classroom.reports.export import write_exports

    course, section, results = _results(options)
    paths = write_exports(course, section, results)
    print(f"export/{section} has {len(paths)} files: grades.csv, canvas.csv, moodle.csv, gradescope/.")
    return 0
