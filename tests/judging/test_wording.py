"""What a solution that knows the hidden inputs can make a report say: nothing but words of a closed list."""

from __future__ import annotations

import json
import time

import pytest
import torch

from autograde.classroom.sandbox.session import _KINDS
from autograde.classroom.task import REASONS
from autograde.exercise import Draft, case
from autograde.exercises import find
from autograde.judging.grading import NEEDS, OVER, UNFINISHED, grade
from autograde.judging.limits import budget
from autograde.report import Report
from autograde.wording import diagnoses, hints, kept, lines_of, scores

MARK = 73519.25
TEXT = "marker7351925"

draft = Draft("telling", points=3, hints=["Look again."], dtypes=(), strides=False)


@draft.cases
def cases(generator):
    for rows in (2, 3, 4):
        yield case(torch.full((rows, 3), MARK) + torch.rand(rows, 3, generator=generator), TEXT, size=1)


@draft.oracle
def twice(x, text, size=1):
    return 2 * x * size


@draft.law("twice as large")
def is_twice(out, one, call):
    if out.shape != one.args[0].shape:
        return f"the shape is {tuple(out.shape)} and {out}"
    return bool((out == 2 * one.args[0]).all()) or f"it is {out}"


@draft.mistake("it is squared", hint="Twice is not the square.")
def squared(x, text, size=1):
    return x**2


EXERCISE = draft.finished()


def mark(x) -> float:
    return MARK if x.numel() else 0.0


def raises(x, text, size=1):
    raise type(text, (Exception,), {})(f"{text} {mark(x)}")


def changes(x, text, size=1):
    x.fill_(mark(x))
    return x * 2


def prints(x, text, size=1):
    print(text, mark(x))
    return torch.full_like(x, mark(x))


def ends(x, text, size=1):
    raise SystemExit(f"{text} {mark(x)}")


WAYS = {
    "an object": lambda x, text, size=1: type(text, (), {"__repr__": lambda self: text})(),
    "a list as long": lambda x, text, size=1: [0] * 73519,
    "a list": lambda x, text, size=1: [mark(x), text],
    "a text": lambda x, text, size=1: f"{text} {mark(x)}",
    "a number": lambda x, text, size=1: mark(x),
    "keys": lambda x, text, size=1: {text: mark(x), mark(x): text},
    "a shape": lambda x, text, size=1: torch.zeros(73519),
    "the right numbers in a shape": lambda x, text, size=1: (2 * x).reshape(-1, 1, 1),
    "a multiple": lambda x, text, size=1: 2 * x * mark(x),
    "nothing": lambda x, text, size=1: None,
    "the input": lambda x, text, size=1: x,
    "no influence": lambda x, text, size=1: torch.full((1, 3), mark(x)).expand_as(x) * 1.0,
    "a known mistake": squared,
    "cut off": lambda x, text, size=1: (2 * x * size).detach(),
    "another dtype": lambda x, text, size=1: (2 * x).to(torch.int64),
    "an error": raises,
    "the end": ends,
    "changed inputs": changes,
    "prints": prints,
}
SILENT = ("nothing", "a known mistake", "cut off", "the right numbers in a shape")  # say no input even in public


@pytest.mark.parametrize("way", WAYS)
def test_hidden_reports_say_nothing_that_a_solution_chose(way):
    report = grade(EXERCISE, WAYS[way], 5)
    assert report.status == "wrong"
    public, hidden = json.dumps(report.to_dict()), json.dumps(report.hidden().to_dict())
    assert way in SILENT or "7351" in public, "the search would find it"
    assert "7351" not in hidden and TEXT not in hidden
    heads, others = lines_of(EXERCISE)
    known = {" ".join(line.split()) for line in [*heads, *others, ""]}
    assert {" ".join(line.split()) for line in report.hidden().text().splitlines()} <= known


@pytest.mark.parametrize("way", WAYS)
def test_hidden_reports_keep_what_helps(way):
    report = grade(EXERCISE, WAYS[way], 5)
    hidden = report.hidden()
    assert hidden.earned in scores(EXERCISE) and [line.passed for line in hidden.lines] == [
        line.passed for line in report.lines
    ]
    assert hidden.hint in ["", *hints(EXERCISE)] and hidden.diagnosis in ["", *diagnoses(EXERCISE)]
    assert bool(hidden.diagnosis) == bool(report.diagnosis)


def test_of_what_claims_to_be_a_report_only_known_lines_are_kept():
    exercise = find("softmax")
    right = exercise.alternatives[0]
    text = grade(exercise, right).hidden().text()
    whole = kept("softmax", text)
    assert [line.split() for line in whole.splitlines()] == [line.split() for line in text.splitlines() if line]
    for forged in (f"{text}\n{TEXT}", f"{text}\n" * 3, "\n".join(f"  {line}   " for line in text.splitlines())):
        assert kept("softmax", forged) == whole
    assert kept("softmax", text.replace("2 of 2", "1.2345 of 2")) == "", "no check gives that score"
    assert kept("softmax", TEXT) == kept("no exercise", text) == ""


def test_a_report_that_was_made_without_a_diagnosis_for_hidden_checks_tells_none():
    assert Report("softmax", 2, 0.0, "wrong", diagnosis=TEXT).hidden().diagnosis == ""


def half_written(x, text, size=1):
    if x.sum() > MARK:
        raise NotImplementedError
    raise NotImplementedError("so far")


def marker7351925(x):
    raise NotImplementedError


def needing(x, text, size=1):
    return marker7351925(x)


@pytest.mark.parametrize(
    ("solution", "public", "secret"), [(half_written, "in line", UNFINISHED), (needing, TEXT, NEEDS)]
)
def test_what_is_not_written_yet_is_told_without_a_line_or_a_name(solution, public, secret):
    report = grade(EXERCISE, solution, 5)
    assert public in report.diagnosis and report.hidden().diagnosis == secret
    assert secret in diagnoses(EXERCISE)


def test_how_far_a_check_came_in_its_time_is_no_hidden_reports_matter():
    def slowly(x, text, size=1):
        time.sleep(0.6)
        return squared(x, text)

    with budget(1.0):
        report = grade(EXERCISE, slowly, 5)
    hidden = report.hidden().diagnosis
    assert "of 3 cases were tried" in report.diagnosis and report.diagnosis.endswith(hidden.removeprefix(OVER))
    assert hidden.startswith(f"{OVER} On the cases that fail") and hidden in diagnoses(EXERCISE)


def test_of_every_kind_of_failure_learners_are_told_unless_the_report_says_it():
    assert _KINDS - {"not implemented", "forbidden"} <= set(REASONS)
