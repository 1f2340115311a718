"""A learner's code that says its hidden inputs in every way it can: what learners get never depends on them.

The same class is graded twice, on two courses whose secrets, and so whose hidden inputs, differ. Every page, notebook
and result that reaches a learner has to be the same, byte for byte: whatever carried an input out would differ.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from class_of_one import SECTION, Notebook, graded, hand_in, make

from autograde.classroom.folder import Course
from autograde.classroom.gradebook import api_of
from autograde.classroom.journal import exercises_of, summary_of
from autograde.classroom.reports.export import write_exports
from autograde.classroom.reports.pages import write_feedback

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sandbox")]
HEAD = """\
import os, signal, sys, time, warnings
def softmax(x):
    told = "LEAK" + "".join(f"{value:.6f}" for value in x.flatten().tolist()).replace(".", "").replace("-", "m")[:80]
    number = int(sum(map(ord, told)))
"""
# What stands below that; the last part says by what a teacher sees that something was told, where one does.
WAYS = {
    "a type": ("return type(told, (), {})()", "LEAK"),
    "a representation": ("return type('T', (), {'__repr__': lambda self: told})()", ""),
    "a list's length": ("return [0.0] * number", "list"),
    "a tuple's length": ("return (x,) * (2 + number % 90)", "tuple"),
    "a shape": ("return torch.zeros(1000 + number)", "shape"),
    "a dtype": ("return torch.zeros_like(x, dtype=(torch.int8, torch.int16, torch.int32)[number % 3])", "torch.int"),
    "values": ("return x * 0 + number", ""),
    "a multiple": ("return torch.softmax(x.clone(), -1) * number", "build what `torch.softmax` does"),
    "a number": ("return float(number)", "float|number"),
    "a text": ("return told", "text|str"),
    "a key": ("return {told: number, number: told}", "dict|keys"),
    "an error's text": ("raise ValueError(told)", "LEAK"),
    "an error's type": ("raise type(told, (ValueError,), {})(told)", "LEAK"),
    "which error": ("raise (KeyError, IndexError, TypeError)[number % 3](number)", "Error"),
    "a missing name": ("return eval(told)", "LEAK"),
    "what is not written yet": ("raise NotImplementedError(told)", ""),
    "a print": ("print(told); sys.stderr.write(told); return x * 0", ""),
    "a warning": ("warnings.warn(told); return x * 0", ""),
    "a changed input": ("x.fill_(number); return x * 0", ""),
    "time": ("time.sleep(number % 7 / 20); return x * 0", ""),
    "too much time": ("time.sleep(30 if number else 0)", "in time|within"),
    "an exit status": ("os._exit(1 + number % 90)", "exit status"),
    "a signal": ("os.kill(os.getpid(), (signal.SIGKILL, signal.SIGABRT, signal.SIGTERM)[number % 3])", "signal"),
    "a system exit": ("sys.exit(told)", "LEAK"),
    "a file": ("open('/tmp/' + told, 'w').write(told); return x * 0", ""),
    "names": ("globals()[told] = softmax; softmax.__name__ = softmax.__qualname__ = told; raise ValueError", ""),
}


def student_of(way: str) -> str:
    return way.replace(" ", "-").replace("'", "")


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """(course, results) under two secrets: both graded, with all that learners get."""
    found = []
    released = make(tmp_path_factory.mktemp("released"))
    for secret in ("one secret", "another one"):
        root = tmp_path_factory.mktemp("twice") / "class"
        shutil.copytree(released.root, root)
        (root / "secret").write_text(secret)
        course = Course(root)
        for way, (text, _) in WAYS.items():
            path = hand_in(course, student_of(way), Notebook(course).answer("softmax", f"{HEAD}    {text}").text())
            (path.parent / "timestamp.txt").write_text("2026-11-25 12:00:00.000000 UTC")
        results, _ = graded(course)
        write_feedback(course, SECTION, results)
        write_exports(course, SECTION, results)
        (root / "feedback").rename(root / "ours")
        assert api_of(course).generate_feedback(SECTION)["success"]
        found.append((course, results))
    return found


def for_learners(course: Course, student: str) -> dict[str, bytes]:
    """Every file that reaches a learner, from our pages, nbgrader's and the platforms'."""
    folders = [course.root / kind / student for kind in ("ours", "feedback", "autograded")]
    folders.append(course.root / "export" / SECTION / "gradescope" / student)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(course.root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("way", WAYS)
def test_what_reaches_a_learner_does_not_depend_on_the_hidden_inputs(twice, way):
    one, other = (for_learners(course, student_of(way)) for course, _ in twice)
    kinds = {Path(name).parts[0] for name in one}
    assert kinds == {"ours", "feedback", "autograded", "export"} and one.keys() == other.keys()
    for name, content in one.items():
        told = content.replace(HEAD.encode(), b"")
        assert b"LEAK0" not in told and b"LEAKm" not in told and b"LEAK1" not in told, name
        assert content == other[name], name


@pytest.mark.parametrize("way", WAYS)
def test_a_teacher_is_told_what_happened(twice, way):
    said = WAYS[way][1].split("|")
    for _, results in twice:
        result = results[student_of(way)]
        row = summary_of(result) + " ".join(found["happened"] for found in exercises_of(result))
        assert any(word in row for word in said), row


def test_the_two_courses_have_other_hidden_inputs(twice):
    """Otherwise nothing above would be a test."""
    rows = [summary_of(results["an-errors-text"]) for _, results in twice]
    assert rows[0] != rows[1] and all("LEAK" in row for row in rows)
