"""What a teacher runs: `autograde release|collect|grade|feedback|report|export SECTION`, and what may come between."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

from autograde.classroom.folder import Course
from autograde.files import FULL


def add_commands(commands) -> None:
    """Add the teacher's commands to the `autograde` command's subparsers."""
    _command(commands, "release", _release, "make release/SECTION, what learners get, and enter it in the gradebook")
    collect = _command(commands, "collect", _collect, "take submissions from a folder or a zip file")
    from_what = "a folder or zip file, as Canvas, Blackboard, Moodle and others make it, or a folder for each student"
    collect.add_argument("source", type=pathlib.Path, metavar="FROM", help=from_what)
    collect.add_argument(
        "--encoding", default="", metavar="NAME", help="of the names in an old zip file, such as cp932"
    )
    grade = _command(commands, "grade", _grade, "run the submissions in a sandbox and put the scores in the gradebook")
    grade.add_argument("--student", action="append", default=[], help="only this one; can be given again")
    grade.add_argument("--notebook", default="", help="only this one")
    grade.add_argument("--exercise", default="", metavar="NAME", help="only this one, of what is graded already")
    grade.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, metavar="N", help="students at a time")
    grade.add_argument("--scheduler", default="", metavar="tcp://HOST:PORT", help="use the Dask cluster there")
    grade.add_argument("--regrade", action="store_true", help="grade again what is graded, or go on with that")
    grade.add_argument(
        "--unsafe-no-sandbox", action="store_true", help="run learners' code as yourself; every report will say so"
    )
    whole = commands.add_parser("submission", help="whether a notebook that came back is whole; nothing of it is run")
    whole.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE.ipynb", help="from Colab, VS Code, a mail")
    whole.set_defaults(run=_submission)
    roster = commands.add_parser("roster", help="who is in the class: read Canvas's, Moodle's or Gradescope's own list")
    roster.add_argument("file", type=pathlib.Path, metavar="FILE.csv", help="with names, e-mails, ids")
    roster.add_argument("--section", default="", help="whose participants Moodle's grading worksheet numbers")
    _in_course(roster, _roster)
    due = _command(commands, "due", _due, "set a section's due date")
    due.add_argument("time", metavar="TIME", help="such as 2026-11-01T23:59 or 2026-11-01T23:59+01:00, or none")
    extend = _command(commands, "extend", _extend, "give a student more time than the due date")
    extend.add_argument("student", metavar="STUDENT")
    extend.add_argument("hours", type=_amount, metavar="HOURS", help="after the due date; 0 takes it back")
    points = _command(commands, "points", _points, "change what an exercise is worth, for what is graded, too")
    points.add_argument("exercise", metavar="EXERCISE")
    points.add_argument("points", type=_amount, metavar="POINTS", help="0 drops it")
    for name, run, told in (
        ("feedback", _feedback, "write feedback/STUDENT/SECTION/*.html"),
        ("report", _report, "write reports/SECTION.html: scores, misconceptions, similarity"),
        ("export", _export, "write export/SECTION: CSV, Canvas, Moodle, Gradescope"),
    ):
        _command(commands, name, run, told)


def _command(commands, name: str, run, told: str):
    parser = commands.add_parser(name, help=told, description=told)
    parser.add_argument("section", metavar="SECTION", help="its name or the beginning of it, such as 01")
    return _in_course(parser, run)


def _in_course(parser, run):
    parser.add_argument("--course", type=pathlib.Path, default=pathlib.Path(), metavar="DIR", help="the course folder")
    parser.set_defaults(run=run)
    return parser


def _amount(text: str) -> float:
    amount = float(text)
    if not 0 <= amount < 10_000:
        raise argparse.ArgumentTypeError("from 0 to 10,000")
    return amount


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _release(options) -> int:
    from autograde.classroom.gradebook import api_of

    course = Course(options.course)
    section = course.section(options.section)
    with _restored(course.root / "release" / section):
        result = api_of(course).generate_assignment(section, force=True)
        if not result["success"]:
            lines = f"{result.get('log') or ''}\n{result.get('error') or ''}".splitlines()
            if any("disk is full" in line or "No space left" in line for line in lines):
                raise ValueError(FULL)
            causes = [line for line in lines if "Error" in line and "NbGrader" not in line] or ["it did not say why"]
            raise ValueError(f"nbgrader could not release {section}: {causes[-1].strip()}")
    with _book(options) as book:
        book.again_points()
    notebooks = [of.name for of in course.outlines(section)]
    print(f"release/{section} is ready with {len(notebooks)} notebooks: hand that folder out.")
    return 0


@contextlib.contextmanager
def _restored(folder: pathlib.Path) -> Iterator[None]:
    """Where the body fails, the folder is what it was: nbgrader removes a release before it makes the next."""
    before = folder.with_name(f".{folder.name}-before")
    if before.exists():  # somebody pulled the plug
        shutil.rmtree(folder, ignore_errors=True)
        before.rename(folder)
    if folder.exists():
        folder.rename(before)
    try:
        yield
    except BaseException:
        if before.exists():
            shutil.rmtree(folder, ignore_errors=True)
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _collect(options) -> int:
    from autograde.classroom.collect import collect

    course = Course(options.course)
    section = course.section(options.section)
    found = collect(course, section, options.source, options.encoding)
    for line in found.taken:
        print(f"taken: {line}")
    for line in found.left_out:
        print(f"left out: {line}", file=sys.stderr)
    files = f"{len(found.taken)} files taken, {len(found.left_out)} left out"
    print(f"{files}: {len(found.new)} students with something new, {len(found.same)} without.")
    return 0 if found.taken else 1


def _grade(options) -> int:
    from autograde.classroom.run import grade_section

    course = Course(options.course)
    grade_section(
        course,
        course.section(options.section),
        students=options.student,
        notebook=options.notebook,
        exercise=options.exercise,
        jobs=options.jobs,
        scheduler=options.scheduler,
        regrade=options.regrade,
        unsafe=options.unsafe_no_sandbox,
    )
    return 0


def _submission(options) -> int:
    from autograde.classroom.whole import look

    looks = [look(file) for file in options.files]
    print("\n\n".join(each.text for each in looks))
    return max(each.code for each in looks)


def _roster(options) -> int:
    from autograde.classroom.roster import Roster

    course = Course(options.course)
    roster = Roster(course)
    section = course.section(options.section) if options.section else ""
    new, there, left_out = roster.read(options.file.read_bytes(), section)
    roster.save()
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(f"roster.csv has {len(roster.rows)} students: {new} new, {there} known before, {len(left_out)} left out.")
    return 0


def _due(options) -> int:
    from autograde.classroom.late import moment

    due = moment(options.time)
    with _book(options) as book:
        book.set_due(due)
        print(f"{book.section} is due {f'{due:%d %b %Y %H:%M} UTC' if due else 'at no time'}.")
    return 0


def _extend(options) -> int:
    with _book(options) as book:
        book.extend(options.student, options.hours)
        print(f"{options.student} has {options.hours:g} hours more for {book.section}.")
    return 0


def _points(options) -> int:
    from autograde.classroom.journal import Journal

    with _book(options) as book:
        book.set_points(options.exercise, options.points, Journal(book.course, book.section).latest())
        told = f"is worth {options.points:g} points" if options.points else "is dropped"
        print(f"{options.exercise} {told} in {book.section}, in all that is graded and from now on.")
    return 0


@contextlib.contextmanager
def _book(options):
    """The gradebook of a section, open."""
    from autograde.classroom.gradebook import Book, opened

    course = Course(options.course)
    with opened(course) as gradebook:
        yield Book(gradebook, course, course.section(options.section))


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
