"""One total, wherever it stands: over manual scores, extra credit, penalties, extensions, changed points, dropped ones.

Results are made up here, so that nothing has to be run in a sandbox.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import html
import io
import json
import random
import re
import shutil

import pytest
from class_of_one import CHAPTER, OTHER, POINTS, SECTION, Notebook, hand_in, make

from autograde import cli
from autograde.classroom import regrade
from autograde.classroom import run as run_module
from autograde.classroom.folder import Course, digests_of
from autograde.classroom.gradebook import Book, api_of, opened
from autograde.classroom.journal import Journal
from autograde.classroom.late import moment
from autograde.classroom.reports.classreport import class_page
from autograde.classroom.reports.export import write_exports
from autograde.classroom.reports.pages import write_feedback
from autograde.classroom.run import grade_section
from autograde.classroom.scores import standings
from autograde.classroom.task import worthless

PENALTY = """
from nbgrader.plugins import BasePlugin
class PerDay(BasePlugin):
    def late_submission_penalty(self, student_id, score, total_seconds_late):
        return 0.1 * score * (1 + total_seconds_late // 86400)
"""
DUE = datetime.datetime(2026, 11, 1, 12)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    course = make(tmp_path_factory.mktemp("released"))
    (course.root / "a_penalty.py").write_text(PENALTY)
    with open(course.root / "nbgrader_config.py", "a", encoding="utf-8") as file:
        file.write('c.AssignLatePenalties.plugin_class = "a_penalty.PerDay"\n')
    return course


@pytest.fixture
def course(released, tmp_path) -> Course:
    shutil.copytree(released.root, tmp_path / "class")
    return Course(tmp_path / "class")


def handed_in(course: Course, student: str, hours: float = 0.0) -> None:
    """Both notebooks, so many hours after the due date."""
    for name in (CHAPTER, OTHER):
        path = hand_in(course, student, Notebook(course, name).text(), name)
    time = DUE + datetime.timedelta(hours=hours)
    (path.parent / "timestamp.txt").write_text(f"{time:%Y-%m-%d %H:%M:%S.%f} UTC\n")


def result(course: Course, student: str, **earned: float) -> dict:
    """What grading would have found."""
    outlines = course.outlines(SECTION)
    digests = digests_of(*course.submitted(student, SECTION, [of.name for of in outlines]))
    notebooks = {of.name: worthless(of, "") | {"digest": digests[of.name]} for of in outlines}
    for found in [e for notebook in notebooks.values() for e in notebook["exercises"]]:
        found["report"]["earned"] = earned.get(found["report"]["exercise"], 0.0)
    made = {"student": student, "section": SECTION, "sandbox": "none", "graded": "", "seconds": 1.0, "megabytes": 1.0}
    return made | {"notebooks": notebooks}


def booked(course: Course, results: list[dict]) -> dict[str, dict]:
    with Journal(course, SECTION) as journal, opened(course) as gradebook:
        book = Book(gradebook, course, SECTION)
        book.enter_students()
        for one in results:
            journal.add(one)
            book.write(one)
        return journal.latest()


def command(course: Course, *arguments: object) -> None:
    name, *others = map(str, arguments)
    assert cli.main([name, SECTION, *others, "--course", str(course.root)]) == 0


def grades(gradebook, student: str) -> dict:
    return {g.name: g for n in gradebook.find_submission(SECTION, student).notebooks for g in n.grades}


def totals(course: Course, results: dict[str, dict]) -> dict[str, dict[str, float]]:
    """place -> student -> total, everywhere that one stands."""
    write_feedback(course, SECTION, results)
    write_exports(course, SECTION, results)
    found: dict[str, dict[str, float]] = {
        "one function": {s: its.total for s, its in standings(course, SECTION).items()}
    }
    pages = {s: (course.root / "feedback" / s / SECTION).glob("*.html") for s in results}
    texts = {s: [html.unescape(path.read_text(encoding="utf-8")) for path in paths] for s, paths in pages.items()}
    own = r"<strong>([-\d.]+) of [\d.]+ points"
    found["page"] = {s: max(0.0, sum(float(re.search(own, t)[1]) for t in each)) for s, each in texts.items()}
    found["page, in all"] = {s: float(re.search(r"In all of .*?: ([\d.]+) of", t)[1]) for s, (t, _) in texts.items()}
    row = r'<tr><td>([^<]+)</td><td class="n">([^<]+)</td><td class="n">[^<]+</td><td class="n">[^<]+</td><td>'
    report = class_page(SECTION, results, standings(course, SECTION)).split("<h2>Everybody</h2>")[1]
    found["report"] = {html.unescape(student): float(points) for student, points in re.findall(row, report)}
    folder = course.root / "export" / SECTION
    for name, key, points in (
        ("grades", "student", "points"),
        ("canvas", "SIS User ID", SECTION),
        ("moodle", "Username", "Grade"),
    ):
        with open(folder / f"{name}.csv", newline="", encoding="utf-8") as file:
            found[name] = {r[key]: float(r[points]) for r in csv.DictReader(file) if r[key]}
    texts = {path.parent.name: path.read_text(encoding="utf-8") for path in folder.glob("gradescope/*/results.json")}
    found["gradescope"] = {student: json.loads(text)["score"] for student, text in texts.items()}
    shown = {s["student"]: s["score"] for s in api_of(course).get_submissions(SECTION)}
    with opened(course) as gradebook:
        submissions = {s.student.id: s for s in gradebook.assignment_submissions(SECTION)}
        assert {s: round(shown[s], 4) for s in results} == {s: round(submissions[s].score, 4) for s in results}
        found["formgrader"] = {s: max(0, shown[s] - submissions[s].late_submission_penalty) for s in results}
        exporter = _exporter(course)
        exporter.export(gradebook)
    with open(course.root / "nbgraders.csv", newline="", encoding="utf-8") as file:
        found["nbgrader export"] = {r["student_id"]: float(r["score"]) for r in csv.DictReader(file)}
    return {place: {s: round(v, 4) for s, v in each.items()} for place, each in found.items()}


def _exporter(course: Course):
    from nbgrader.plugins.export import CsvExportPlugin

    return CsvExportPlugin(to=str(course.root / "nbgraders.csv"))


@pytest.mark.parametrize("seed", range(3))
def test_every_place_has_the_same_total(course, seed):
    chance = random.Random(seed)
    (course.root / "roster.csv").write_text("id,name,email\nzoe,Zoe Last,zoe@x.edu\nada,Ada,\n")
    students = ["ada", "bob", "cleo", "dan", "O'Brien (Jr.)", "张伟"]
    for student in students:
        handed_in(course, student, chance.choice([-5, 0, 0.5, 30, 300]))
    everyone = [result(course, s, **{e: chance.uniform(0, p) for e, p in POINTS.items()}) for s in students]
    results = booked(course, everyone)
    command(course, "due", f"{DUE.isoformat()}+00:00")
    for _ in range(6):
        with opened(course) as gradebook:
            grade = grades(gradebook, chance.choice(students))[f"check_{chance.choice(list(POINTS))}"]
            grade.manual_score = chance.choice([None, 0, 1.25, chance.uniform(0, 2)])
            grade.extra_credit = chance.choice([None, 0.5, 0, -9])
            gradebook.db.commit()
    command(course, "points", "softmax", chance.choice([0, 1, 2, 5.5]))
    command(course, "extend", chance.choice(students), chance.choice([0, 1, 400]))
    for place, found in totals(course, results).items():
        wanted = {s: its.total for s, its in standings(course, SECTION).items()}
        assert set(wanted) == {*students, "zoe"}
        only = set(students) if place.startswith(("page", "gradescope", "formgrader")) else set(wanted)
        assert set(found) == only, place
        assert found == pytest.approx({s: wanted[s] for s in only}, abs=2e-3 if place.startswith("page") else 1e-4), (
            place
        )


def totals_of_bob(course: Course, results: dict) -> dict[str, float]:
    """place -> bob's total; Canvas and Moodle know him by other ids."""
    found = totals(course, results)
    return {place: each[{"canvas": "S2", "moodle": "bkahn"}.get(place, "bob")] for place, each in found.items()}


def nbgraders_own_step(course: Course, student: str, name: str) -> None:
    """What nbgrader's run does about being late."""
    from nbgrader.preprocessors import AssignLatePenalties
    from traitlets.config import Config

    names = {}
    exec(PENALTY, names)
    config = Config({"AssignLatePenalties": {"plugin_class": names["PerDay"]}})
    who = {"notebook": name, "assignment": SECTION, "student": student, "db_url": f"sqlite:///{course.database}"}
    AssignLatePenalties(config=config).preprocess(Notebook(course, name).nb, {"nbgrader": who})


def test_points_by_hand_extra_credit_and_a_penalty_add_up(course):
    columns = f"id,name,email,login,sid,canvas_id,participant:{SECTION},listed\n"
    (course.root / "roster.csv").write_text(columns + 'bob,"Kahn, Bob",b@x.edu,bkahn,S2,77,1234,yes\n')
    handed_in(course, "bob", 30)
    results = booked(course, [result(course, "bob", softmax=1.0, causal_mask=2.0)])
    assert standings(course, SECTION)["bob"].total == 3.0
    command(course, "due", f"{DUE.isoformat()}+00:00")
    assert standings(course, SECTION)["bob"].total == pytest.approx(3.0 - 0.6), "two days begun, 10 % each"
    with opened(course) as gradebook:
        grade = grades(gradebook, "bob")["check_softmax"]
        grade.manual_score, grade.extra_credit = 1.75, 0.5
        gradebook.db.commit()
    found = totals_of_bob(course, results)
    assert found == dict.fromkeys(found, pytest.approx(4.25 * 0.8))
    folder = course.root / "export" / SECTION
    for name, row in (
        ("canvas", ["Kahn, Bob", "77", "S2", "bkahn"]),
        ("moodle", ["Participant 1234", "Bob Kahn", "bkahn"]),
    ):
        assert row == next(csv.reader((folder / f"{name}.csv").read_text().splitlines()[-1:]))[: len(row)]
    with opened(course) as gradebook:
        before = [n.late_submission_penalty for n in gradebook.find_submission(SECTION, "bob").notebooks]
        student = gradebook.find_student("bob")
        assert (student.first_name, student.last_name, student.email, student.lms_user_id) == (
            "Bob",
            "Kahn",
            "b@x.edu",
            "77",
        )
    for name in (CHAPTER, OTHER):
        nbgraders_own_step(course, "bob", name)
    with opened(course) as gradebook:
        assert before == [n.late_submission_penalty for n in gradebook.find_submission(SECTION, "bob").notebooks]
    page = (course.root / "feedback/bob" / SECTION / f"{CHAPTER}.html").read_text(encoding="utf-8")
    assert "Your teacher gave 1.75 points." in page and "0.45 points were taken off because it came late." in page


def test_an_extension_moves_one_student_s_due_date_and_can_be_taken_back(course):
    for student in ("ada", "bob"):
        handed_in(course, student, 2)
    booked(course, [result(course, s, softmax=2.0) for s in ("ada", "bob")])
    command(course, "due", f"{DUE.isoformat()}+00:00")
    command(course, "extend", "ada", 3)
    assert {s: its.total for s, its in standings(course, SECTION).items()} == {"ada": 2.0, "bob": 1.8}
    command(course, "extend", "ada", 0)
    assert standings(course, SECTION)["ada"].total == 1.8
    command(course, "due", "none")
    assert standings(course, SECTION)["ada"].total == 2.0


def test_nbgrader_s_own_penalty_is_taken_from_its_configuration(course):
    with open(course.root / "nbgrader_config.py", "a", encoding="utf-8") as file:
        file.write("from nbgrader.plugins import LateSubmissionPlugin\n")
        file.write("c.AssignLatePenalties.plugin_class = LateSubmissionPlugin\n")
        file.write('c.LateSubmissionPlugin.penalty_method = "zero"\n')
    handed_in(course, "bob", 1)
    booked(course, [result(course, "bob", softmax=2.0)])
    command(course, "due", f"{DUE.isoformat()}+00:00")
    assert standings(course, SECTION)["bob"].total == 0.0 and standings(course, SECTION)["bob"].penalty == 2.0


def test_a_dropped_question_counts_for_nobody_and_comes_back_with_what_was_given_by_hand(course):
    handed_in(course, "bob")
    results = booked(course, [result(course, "bob", softmax=1.0, causal_mask=2.0)])
    with opened(course) as gradebook:
        grades(gradebook, "bob")["check_softmax"].manual_score = 1.5
        gradebook.db.commit()
    results["bob"]["notebooks"][CHAPTER]["remarks"] = ["edits in <2> of the course's own cells"]
    assert "<td>edits in &lt;2&gt; of" in class_page(SECTION, results, standings(course, SECTION))
    command(course, "points", "softmax", 0)
    assert (standings(course, SECTION)["bob"].total, standings(course, SECTION)["bob"].most) == (2.0, 2.0)
    write_feedback(course, SECTION, results)
    page = (course.root / "feedback/bob" / SECTION / f"{CHAPTER}.html").read_text(encoding="utf-8")
    assert "This exercise counts for nobody." in page and "<li>edits in &lt;2&gt; of" in page
    booked(course, [result(course, "bob", softmax=2.0, causal_mask=2.0)])
    assert standings(course, SECTION)["bob"].total == 2.0, "graded again it still counts for nobody"
    command(course, "points", "softmax", 4)
    assert (standings(course, SECTION)["bob"].total, standings(course, SECTION)["bob"].most) == (3.5, 6.0)
    with opened(course) as gradebook:
        grade = grades(gradebook, "bob")["check_softmax"]
        assert grade.auto_score == 4.0 and grade.manual_score == 1.5


def test_another_release_keeps_the_points_that_a_teacher_has_set(course):
    command(course, "points", "softmax", 5)
    command(course, "release")
    assert all(its.most == 7.0 for its in standings(course, SECTION, ["ada"]).values())


def test_mistakes_in_these_commands_are_told(course, capsys):
    for arguments, says in (
        (["points", SECTION, "sofmax", "1"], "has no exercise 'sofmax'. There are causal_mask, softmax."),
        (["due", SECTION, "tomorrow"], "'tomorrow' is no time: write it as 2026-11-01T23:59"),
        (["extend", "99", "ada", "1"], "There is no section '99'"),
        (["extend", SECTION, "dna", "1"], "There is no student 'dna'"),
        (["collect", SECTION, ".", "--encoding", "cp0"], "There is no encoding 'cp0'."),
    ):
        assert cli.main([*arguments, "--course", str(course.root)]) == 1
        assert says in capsys.readouterr().err
    (course.root / "points.json").write_text("[]")
    assert cli.main(["points", SECTION, "softmax", "1", "--course", str(course.root)]) == 1
    assert "points.json is damaged" in capsys.readouterr().err


def test_a_time_without_a_zone_is_this_computer_s():
    here = datetime.datetime(2026, 11, 1, 23, 59)
    assert moment("2026-11-01T23:59") == here.astimezone(datetime.UTC).replace(tzinfo=None)
    assert moment("2026-11-01 23:59+02:00") == datetime.datetime(2026, 11, 1, 21, 59)


class Made:
    """Grading without a sandbox: every exercise that is asked for has all points; interrupted after some students."""

    def __init__(self, course: Course, after: int = 99):
        self.course, self.after, self.seen = course, after, []

    def results(self, due, task_of, executor):
        for student, part in due:
            if len(self.seen) == self.after:
                raise KeyboardInterrupt
            self.seen.append((student, [name for of in part for name in of.points]))
            made = result(self.course, student)
            for of in part:
                notebook = worthless(of, "")
                for found in notebook["exercises"]:
                    found["report"]["earned"] = found["report"]["points"]
                made["notebooks"][of.name] = notebook | {"digest": made["notebooks"][of.name]["digest"]}
            wanted = [of.name for of in part]
            yield made | {"notebooks": {name: made["notebooks"][name] for name in wanted}}


def graded(course: Course, monkeypatch, after: int = 99, **options) -> tuple[list, str]:
    """(who was graded in which exercises, what was said)."""
    said, made = [], Made(course, after)
    monkeypatch.setattr(run_module, "engine", bool)
    monkeypatch.setattr(run_module, "_executor", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(run_module, "_results", made.results)
    out = io.StringIO()
    try:
        grade_section(course, SECTION, out=out, **options)
    except KeyboardInterrupt:
        said.append("interrupted")
    return made.seen, "\n".join([out.getvalue(), *said])


def test_one_exercise_is_graded_again_and_the_others_stay(course, monkeypatch):
    handed_in(course, "bob")
    booked(course, [result(course, "bob", softmax=0.5, causal_mask=1.0)])
    handed_in(course, "new")
    seen, _ = graded(course, monkeypatch, exercise="softmax", regrade=True)
    assert seen == [("bob", ["softmax"]), ("new", ["softmax"])]
    assert standings(course, SECTION)["bob"].total == 3.0
    seen, _ = graded(course, monkeypatch)
    assert seen == [("new", ["causal_mask"])], "of the other notebook nothing was graded yet"
    with pytest.raises(ValueError, match="has no exercise 'x'"):
        graded(course, monkeypatch, exercise="x")


def test_an_interrupted_run_says_where_it_stood_and_a_regrade_goes_on_there(course, monkeypatch):
    students = ["ada", "bob", "cleo"]
    for student in students:
        handed_in(course, student)
    _, said = graded(course, monkeypatch, after=1)
    assert "Stopped: 1 of 3 are graded and kept, 2 are not. The same command goes on there." in said
    assert said.endswith("interrupted")
    assert [student for student, _ in graded(course, monkeypatch)[0]] == ["bob", "cleo"]
    graded(course, monkeypatch, after=2, regrade=True)
    seen, said = graded(course, monkeypatch)
    assert not seen and "--regrade goes on with it" in said
    seen, said = graded(course, monkeypatch, regrade=True)
    assert [student for student, _ in seen] == ["cleo"] and "2 are done" in said
    assert len(graded(course, monkeypatch, regrade=True)[0]) == 3, "that one was through, so this is a new one"


@pytest.mark.parametrize("changed", ["exercises", "scope"])
def test_an_interrupted_regrade_begins_anew_where_something_else_is_asked(course, monkeypatch, changed):
    for student in ("ada", "bob"):
        handed_in(course, student)
    graded(course, monkeypatch)
    graded(course, monkeypatch, after=1, regrade=True)
    if changed == "exercises":
        monkeypatch.setattr(regrade, "version", lambda: "another")
    seen, said = graded(course, monkeypatch, regrade=True, notebook="" if changed == "exercises" else CHAPTER)
    assert [student for student, _ in seen] == ["ada", "bob"] and "so this begins anew" in said
