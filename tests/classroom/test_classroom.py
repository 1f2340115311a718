"""The classroom's commands on a small class: nothing is lost, nothing is done twice, and every error is a sentence."""

from __future__ import annotations

import contextlib
import csv
import errno
import html
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest
from class_of_one import (
    CHAPTER,
    MASK,
    OTHER,
    QUICK,
    SECTION,
    SOLVED,
    Notebook,
    graded,
    hand_in,
    honest,
    in_gradebook,
    make,
    manual,
)
from toy_course import nbgrader_api

from autograde import cli
from autograde.classroom import journal, trusted
from autograde.classroom import run as run_module
from autograde.classroom.collect import collect
from autograde.classroom.folder import Course
from autograde.classroom.journal import Journal, summary_of
from autograde.classroom.run import _results
from autograde.classroom.sandbox import isolation
from autograde.classroom.task import STAMP, Task, seeds_of
from autograde.exercises import find

pytestmark = pytest.mark.slow
needs_sandbox = pytest.mark.usefixtures("sandbox")
FULL = {"softmax": 2.0, "causal_mask": 2.0}
WRONG = "def softmax(x):\n    e = (x - x.max()).exp()\n    return e / e.sum()"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return make(tmp_path_factory.mktemp("released"))


@pytest.fixture
def course(released, tmp_path):
    """A fresh copy of the released course."""
    target = tmp_path / "class"
    shutil.copytree(released.root, target)
    return Course(target)


@pytest.fixture(scope="module")
def small(released, tmp_path_factory, sandbox):
    """A class after its grading: solved, wrong, unsolved, and one who comes back later."""
    target = tmp_path_factory.mktemp("small") / "class"
    shutil.copytree(released.root, target)
    course = Course(target)
    honest(course, "ada")
    for name, text in (("bob", WRONG), ("cleo", WRONG)):
        hand_in(course, name, Notebook(course).answer("softmax", text).text())
    hand_in(course, "dan", Notebook(course).text())
    results, printed = graded(course)
    return course, results, printed


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_scores_reach_the_gradebook_and_the_rows_say_what_happened(small):
    course, results, printed = small
    scores = in_gradebook(course)
    assert scores["ada"] == FULL and scores["dan"] == {"softmax": 0.0, "causal_mask": 0.0}
    assert scores["bob"] == scores["cleo"] and scores["bob"]["softmax"] < 2
    report = results["bob"]["notebooks"][CHAPTER]["exercises"][0]["report"]
    assert report["misconception"] == "the sum runs over the whole tensor"
    assert summary_of(results["ada"]) == "graded" and "It was not handed in." in summary_of(results["bob"])
    assert "4 to grade" in printed and "left)" in printed and "4 graded in" in printed


def test_grading_again_grades_nothing_and_changes_nothing(small):
    course, results, _ = small
    before = Journal(course, SECTION).path.read_bytes()
    again, printed = graded(course)
    assert again == results and "0 to grade, 4 graded before" in printed
    assert Journal(course, SECTION).path.read_bytes() == before


def test_a_regrade_repeats_the_scores_and_keeps_the_history(small):
    course, results, _ = small
    again, _ = graded(course, students=["bob"], regrade=True)
    before, after = (r["bob"]["notebooks"][CHAPTER]["exercises"][0]["report"] for r in (results, again))
    assert before == after and before["status"] == "wrong"
    assert Counter(e["student"] for e in Journal(course, SECTION).entries())["bob"] == 2


def test_seeds_differ_between_students_and_exercises_and_come_from_the_secret():
    one, other = seeds_of(b"secret", "ada", ["f", "g"]), seeds_of(b"secret", "bob", ["f", "g"])
    assert len({*one.values(), *other.values()}) == 4
    assert one == seeds_of(b"secret", "ada", ["f", "g"]) != seeds_of(b"Secret", "ada", ["f", "g"])


def test_formgrader_nbgraders_feedback_and_export_go_on_working(small):
    course = small[0]
    api = nbgrader_api(course.root)
    found = {s["student"]: s for s in api.get_submissions(SECTION)}
    assert found["ada"]["autograded"] and found["ada"]["score"] == 4 and not found["ada"]["needs_manual_grade"]
    assert api.generate_feedback(SECTION, "bob")["success"]
    page = (course.root / "feedback/bob" / SECTION / f"{CHAPTER}.html").read_text(encoding="utf-8")
    assert "e / e.sum()" in html.unescape(re.sub("<[^>]+>", "", page)) and "SECRET_SOLUTION" not in page


@needs_sandbox
def test_a_manual_score_and_comment_survive_a_regrade_and_show(course, capsys):
    hand_in(course, "bob", Notebook(course).answer("softmax", WRONG).text())
    graded(course)
    with manual(course, "bob", "softmax") as grade:
        grade.manual_score, grade.extra_credit = 1.75, 0.5
    graded(course, regrade=True)
    assert in_gradebook(course)["bob"]["softmax"] == 2.25
    run(capsys, "feedback", "01", "--course", course.root)
    page = (course.root / "feedback/bob" / SECTION / f"{CHAPTER}.html").read_text(encoding="utf-8")
    assert "Your teacher gave 1.75 points." in page and "SECRET_SOLUTION" not in page
    run(capsys, "export", "01", "--course", course.root)
    with open(course.root / "export" / SECTION / "grades.csv", newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["softmax"] == "2.25"


@needs_sandbox
def test_a_second_submission_replaces_the_first_and_both_are_kept(course, tmp_path):
    box = tmp_path / "box"
    (box / "bob").mkdir(parents=True)
    (box / "bob" / f"{CHAPTER}.ipynb").write_text(Notebook(course).answer("softmax", WRONG).text())
    assert collect(course, SECTION, box).new == ["bob"]
    graded(course)
    first = in_gradebook(course)["bob"]["softmax"]
    assert collect(course, SECTION, box).same == ["bob"]
    (box / "bob" / f"{CHAPTER}.ipynb").write_text(Notebook(course).answer("softmax", SOLVED).text())
    assert collect(course, SECTION, box).new == ["bob"]
    results, printed = graded(course)
    assert in_gradebook(course)["bob"]["softmax"] == 2.0 > first and "1 to grade" in printed
    kept = list((course.root / "history/bob" / SECTION).glob(f"before-*/{CHAPTER}.ipynb"))
    assert len(kept) == 1 and "e / e.sum()" in kept[0].read_text()
    assert len(list(Journal(course, SECTION).entries())) == 2
    assert "UTC" in (course.root / "submitted/bob" / SECTION / "timestamp.txt").read_text()


@needs_sandbox
def test_one_notebook_alone_leaves_the_other_to_be_graded(course):
    honest(course, "ada")
    graded(course, notebook=CHAPTER)
    assert in_gradebook(course)["ada"] == {"softmax": 2.0, "causal_mask": 0.0}
    results, _ = graded(course)
    assert in_gradebook(course)["ada"] == FULL
    assert list(results["ada"]["notebooks"]) == [CHAPTER, OTHER]


def wait_for_more(course: Course, than: int, process) -> None:
    """Until the journal has more than so many entries, or the grader is through."""
    while process.poll() is None and len(list(Journal(course, SECTION).entries())) <= than:
        time.sleep(0.02)


@needs_sandbox
def test_killed_at_ten_random_moments_every_submission_has_one_result(course):
    students = {f"s{i:02}": {"softmax": 0.0 if i % 6 else 2.0, "causal_mask": 0.0} for i in range(60)}
    solved = Notebook(course).answer("softmax", SOLVED).text()
    for student, points in students.items():
        hand_in(course, student, solved if points["softmax"] else solved[:-5])  # cut off: quick to grade
    command = [sys.executable, "-m", "autograde.cli", "grade", "01", "--course", str(course.root), "--jobs", "2"]
    chance, done = random.Random(4), [0]
    for number in range(10):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            if number < 3:  # at any time from the start on, the others when some more are through
                time.sleep(chance.uniform(0.0, 2.0))
            else:
                wait_for_more(course, done[-1] + chance.randrange(3), process)
                time.sleep(chance.uniform(0.0, 0.05))
            process.kill()
        done.append(len(list(Journal(course, SECTION).entries())))
    assert len(set(done)) > 4, done  # the moments are spread over the work
    graded(course)
    entries = list(Journal(course, SECTION).entries())
    assert Counter(entry["student"] for entry in entries) == dict.fromkeys(students, 1)
    assert in_gradebook(course) == students


@needs_sandbox
def test_what_was_graded_and_not_booked_is_booked_and_not_graded_again(course):
    honest(course, "ada")
    graded(course)
    with manual(course, "ada", "softmax") as grade:
        grade.auto_score = 0.0
    with open(Journal(course, SECTION).path, "ab") as file:
        file.write(b'{"student": "cut off')
    _, printed = graded(course)
    assert "graded before, now in the gradebook" in printed and "0 to grade" in printed
    assert in_gradebook(course)["ada"] == FULL
    assert len(list(Journal(course, SECTION).entries())) == 1


@needs_sandbox
def test_a_locked_database_stops_with_a_sentence_and_nothing_is_lost(course, capsys, monkeypatch):
    monkeypatch.setattr("autograde.classroom.gradebook.PATIENCE", 0.2)
    hand_in(course, "ada", Notebook(course).answer("softmax", SOLVED).text())
    lock = sqlite3.connect(course.database)
    lock.execute("begin exclusive")
    code, _, said = run(capsys, "grade", "01", "--course", course.root)
    assert code == 1 and "is locked by another program" in said and "Traceback" not in said
    lock.rollback()
    assert run(capsys, "grade", "01", "--course", course.root)[0] == 0
    assert in_gradebook(course)["ada"]["softmax"] == 2.0


@needs_sandbox
def test_a_full_disk_stops_with_a_sentence_and_leaves_no_half_line(course, capsys, monkeypatch):
    hand_in(course, "ada", Notebook(course).answer("softmax", SOLVED).text())
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal.os, "fsync", full)
    code, _, said = run(capsys, "grade", "01", "--course", course.root, "--jobs", "1")
    assert code == 1 and "The disk is full" in said and calls
    assert Journal(course, SECTION).path.read_bytes() == b""
    monkeypatch.setattr(journal.os, "fsync", real)
    assert run(capsys, "grade", "01", "--course", course.root, "--jobs", "1")[0] == 0
    assert in_gradebook(course)["ada"]["softmax"] == 2.0


@needs_sandbox
def test_two_graders_don_t_work_on_one_section(course):
    with Journal(course, SECTION), pytest.raises(ValueError, match="Another `autograde grade` works on 01_one"):
        graded(course)


@pytest.mark.parametrize(("before", "order"), [((), ["server", "gradebook"]), (("ada",), ["gradebook"])])
def test_what_grades_is_imported_while_the_gradebook_opens_and_only_if_somebody_is_new(
    course, monkeypatch, before, order
):
    hand_in(course, "ada", Notebook(course).text())
    begun = []

    def opened(_):
        begun.append("gradebook")
        raise ValueError("it is not needed further")

    monkeypatch.setattr(run_module, "engine", lambda unsafe: "none")
    monkeypatch.setattr(run_module, "_server", lambda exercises: begun.append("server"))
    monkeypatch.setattr(run_module, "opened", opened)
    monkeypatch.setattr(Journal, "latest", lambda self: dict.fromkeys(before, {}))
    with pytest.raises(ValueError, match="not needed"):
        run_module.grade_section(course, SECTION)
    assert begun == order


def test_the_class_report_counts_misconceptions_and_lists_what_is_alike(small, capsys):
    course = small[0]
    code, said, _ = run(capsys, "report", "01", "--course", course.root)
    page = (course.root / "reports" / f"{SECTION}.html").read_text(encoding="utf-8")
    assert code == 0 and str(course.root / "reports") in said
    assert page.count('<img src="data:image/png') == 2 and "<script" not in page
    assert '<td class="n">2</td>' in page and "4 submissions" in page


def test_exports_are_what_the_platforms_read(small, capsys):
    course, results, _ = small
    assert run(capsys, "export", SECTION, "--course", course.root)[0] == 0
    folder = course.root / "export" / SECTION
    with open(folder / "canvas.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["Student"] == "Points Possible" and rows[0][SECTION] == "4"
    assert {r["SIS User ID"]: r[SECTION] for r in rows[1:]}["ada"] == "4"
    found = json.loads((folder / "gradescope/bob/results.json").read_text(encoding="utf-8"))
    assert found["score"] == sum(t["score"] for t in found["tests"]) < sum(t["max_score"] for t in found["tests"]) == 4


def test_without_a_sandbox_nothing_runs_but_on_request_and_then_every_report_says_so(course, capsys, monkeypatch):
    monkeypatch.setattr(isolation, "_bubblewraps", list)
    monkeypatch.setattr(isolation.shutil, "which", lambda name: None)
    isolation._probed.cache_clear()
    honest(course, "ada")
    try:
        code, _, said = run(capsys, "grade", "01", "--course", course.root)
        assert code == 1 and "sandbox" in said and "Traceback" not in said
        assert not Journal(course, SECTION).path.exists()
        code, _, said = run(capsys, "grade", "01", "--course", course.root, "--unsafe-no-sandbox")
    finally:
        isolation._probed.cache_clear()
    assert code == 0 and STAMP in said and in_gradebook(course)["ada"] == FULL
    for command in ("feedback", "report", "export"):
        assert run(capsys, command, "01", "--course", course.root)[0] == 0
    pages = [*course.root.glob("feedback/**/*.html"), *course.root.glob("reports/*.html")]
    pages += course.root.glob("export/**/results.json")
    assert len(pages) == 4 and all(STAMP in p.read_text(encoding="utf-8") for p in pages)


def test_a_container_lends_the_same_files_and_no_more():
    command = isolation.container_command("podman", QUICK, "a-name")
    text = " ".join(command)
    for wanted in ("--network none", "--read-only", "--cap-drop ALL", "--name a-name", "--pids-limit 256"):
        assert wanted in text
    volumes = [command[i + 1] for i, word in enumerate(command) if word == "--volume"]
    assert all(volume.endswith(":ro") for volume in volumes)
    assert not any("exercises" in volume or "solutions" in volume for volume in volumes)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["grade", "01", "--course", "/nowhere"], "is no course folder"),
        (["grade", "99"], "There is no section '99'. The sections are 01_one"),
        (["grade", "01", "--student", "zoe"], "zoe handed in nothing"),
        (["grade", "01", "--notebook", "x"], "01_one has no notebook 'x'"),
        (["feedback", "01"], "Nothing of 01_one is graded yet"),
        (["report", "01"], "Nothing of 01_one is graded yet"),
        (["export", "01"], "Nothing of 01_one is graded yet"),
        (["collect", "01", "/nowhere.zip"], "/nowhere.zip is neither a folder nor a zip file"),
    ],
)
def test_a_teacher_s_mistake_is_answered_by_a_sentence(released, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(run_module, "engine", bool)  # none of them gets as far as a sandbox
    given = [] if "--course" in arguments else ["--course", str(released.root)]
    code, _, said = run(capsys, *arguments, *given)
    assert code == 1 and says in said and len(said.strip().splitlines()) == 1


def test_a_lost_secret_a_lost_gradebook_and_an_unreleased_section_are_told(course, capsys, monkeypatch):
    monkeypatch.setattr(run_module, "engine", bool)
    hand_in(course, "ada", Notebook(course).text())
    (course.root / "secret").rename(course.root / "elsewhere")
    assert "Put it back" in run(capsys, "grade", "01", "--course", course.root)[2]
    (course.root / "elsewhere").rename(course.root / "secret")
    (course.root / "source/02_new").mkdir()
    (course.root / "source" / SECTION / f"{OTHER}.ipynb").rename(course.root / "source/02_new" / f"{OTHER}.ipynb")
    assert "02_new was never released" in run(capsys, "grade", "02", "--course", course.root)[2]
    course.database.unlink()
    assert "run `autograde release SECTION` first" in run(capsys, "grade", "01", "--course", course.root)[2]


@needs_sandbox
def test_a_dask_cluster_gives_the_same(course):
    distributed = pytest.importorskip("distributed")
    honest(course, "ada")
    hand_in(course, "bob", Notebook(course, OTHER).answer("causal_mask", MASK).text(), OTHER)
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(processes=True, **options) as cluster:
        graded(course, scheduler=cluster.scheduler_address)
    assert in_gradebook(course) == {"ada": FULL, "bob": {"softmax": 0.0, "causal_mask": 2.0}}
    with pytest.raises(ValueError, match="No Dask scheduler answers at tcp://127.0.0.1:9"):
        graded(course, regrade=True, scheduler="tcp://127.0.0.1:9")


class InThisProcess:
    """An executor for a test that changes what grading reads."""

    room = 1

    def submit(self, function, task):
        future = Future()
        future.set_result(function(task))
        return future


@needs_sandbox
def test_a_corrected_exercise_changes_scores_without_a_new_release(course, monkeypatch):
    """The check of softmax is corrected: what it took for wrong is right, and it is worth a point more."""
    hand_in(course, "bob", Notebook(course).answer("softmax", WRONG).text())
    monkeypatch.setattr(run_module, "_executor", lambda *_: contextlib.nullcontext(InThisProcess()))
    graded(course)
    before = in_gradebook(course)["bob"]["softmax"]
    answer = {}
    exec(WRONG, answer)
    mended = replace(find("softmax"), oracle=answer["softmax"], laws=(), points=3)
    monkeypatch.setattr(trusted, "find", lambda name: mended if name == "softmax" else find(name))
    assert "0 to grade" in graded(course)[1], "what is graded isn't graded again by itself"
    graded(course, regrade=True)
    assert before < 2 and in_gradebook(course)["bob"]["softmax"] == 3


class Fragile:
    """An executor of two places: when it meets the task of "bad" it breaks, and takes along what runs beside it."""

    room = 2

    def __init__(self):
        self.running, self.most, self.renewed = [], 0, 0

    def submit(self, _, task):
        future = Future()
        self.running.append((future, task))
        self.most = max(self.most, len(self.running))
        if self.renewed or len(self.running) == self.room or task.student == "last":
            broken = any(task.student == "bad" for _, task in self.running)
            for one, its in self.running:
                if broken:
                    one.set_exception(BrokenProcessPool())
                else:
                    one.set_result({"student": its.student})
            self.running = []
        return future

    def renew(self):
        self.renewed += 1


def test_a_grader_process_that_dies_costs_one_student_and_few_tasks_are_in_memory():
    made = []

    def task_of(student, part):
        made.append(student)
        return Task(student, SECTION, {}, part, {}, {}, {})

    names = ["a", "b", "c", "bad", "d", "last"]
    executor = Fragile()
    results = list(_results([(name, ()) for name in names], task_of, executor))
    whole = {result["student"]: "notebooks" in result for result in results}
    assert whole == dict.fromkeys(names, False) | {"bad": True}, "only one of them is a result without points"
    assert executor.most == 2 and executor.renewed and made.count("bad") == 2
