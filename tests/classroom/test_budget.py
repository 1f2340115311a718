"""What learners' replies may cost outside the sandbox, and whose time counts."""

from __future__ import annotations

import resource
import threading
import time
from dataclasses import replace

import pytest
import torch

from autograde.classroom import trusted
from autograde.classroom.budget import budget
from autograde.exercise import Law
from autograde.exercises import find
from autograde.judging import limits
from autograde.judging.calls import Outcome
from autograde.judging.comparing import compare, weight
from autograde.judging.grading import grade
from autograde.judging.limits import TimeLimit, processor_limit, time_limit

LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_DATA)


@pytest.fixture(autouse=True)
def nothing_read_yet(monkeypatch) -> None:
    """What was read of the system's file in a test before is of another clock."""
    monkeypatch.setattr(limits, "_readings", {})


def work() -> None:
    while True:
        pass


def in_another_thread(function) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.mark.parametrize("where", [lambda function: function(), in_another_thread], ids=["main", "thread"])
def test_work_ends_at_the_processors_time_and_sleep_does_not_count(where):
    seen = []

    def body() -> None:
        with pytest.raises(TimeLimit), processor_limit(0.2):
            time.sleep(0.4)
            seen.append("slept")
            work()

    where(body)
    assert seen == ["slept"]


def test_memory_and_time_are_bounded_in_a_budget_and_as_before_after_it():
    before = [resource.getrlimit(what) for what in LIMITS]
    with budget(seconds=5, megabytes=200):
        assert [resource.getrlimit(what) for what in LIMITS] != before
        with pytest.raises(RuntimeError, match="memory"):
            torch.ones(100_000_000)
        torch.ones(1_000_000)
    with pytest.raises(TimeLimit), budget(seconds=0.2):
        work()
    assert [resource.getrlimit(what) for what in LIMITS] == before


class Reply:
    """Stands for a session whose sandbox gives the same value to every case."""

    def __init__(self, value):
        self.value, self.closed = value, False

    def runner(self, implementation, exercise):
        return self

    def run(self, cases) -> list[Outcome]:
        return [Outcome(self.value) for _ in cases]

    def call(self, *args, **kwargs):
        return self.value

    def close(self) -> None:
        self.closed = True


def test_judging_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(trusted, "budget", lambda: budget(seconds=0.3))
    slow = replace(find("causal_mask"), laws=(Law("never ends", lambda out, one, call: work()),))
    monkeypatch.setattr(slow.__class__, "draw", lambda self, seed: [case_of(slow)])
    session = Reply(slow.oracle(*case_of(slow).args, **case_of(slow).kwargs))
    found = trusted._checked(slow, 5, session)
    assert found["report"]["earned"] == 0 and "could not be judged (TimeLimit)" in found["happened"]
    assert session.closed, "it may have been in the middle of a message"


def case_of(exercise):
    return next(one for one in exercise.cases(torch.Generator().manual_seed(0)) if one.args == (3,))


LARGE = {
    "a tensor": torch.zeros(200_000),
    "a list": [0.0] * 200_000,
    "a text": "x" * 200_000,
    "a dict": dict.fromkeys(range(200_000), 1),
    "nested": [[[1.0] * 1_000] * 100] * 2,
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_far_larger_than_the_answer_is_not_worked_on(name):
    assert weight(LARGE[name]) >= 200_000
    asked = []
    exercise = replace(find("causal_mask"), laws=(Law("asked", lambda out, one, call: asked.append(out)),))
    report = grade(exercise, lambda n, past=0: LARGE[name])
    assert report.earned == 0 and "far larger than the task needs" in report.text() and not asked


def test_a_large_right_answer_is_no_trouble():
    wide = replace(find("causal_mask"), cases=lambda generator: [case_of_size(700)])
    assert grade(wide, find("causal_mask").oracle).solved


def case_of_size(n: int):
    return replace(case_of(find("causal_mask")), args=(n,))


def test_long_texts_are_cut_in_what_is_said_of_them():
    assert len(compare("short", "x" * 10**6).message) < 3_000


def test_time_without_a_processor_is_not_the_learners(monkeypatch):
    told = iter([0.0, 0.3, 0.3, 0.3])
    monkeypatch.setattr(limits, "waited", lambda path: next(told))
    start = time.monotonic()
    with pytest.raises(TimeLimit), time_limit(0.2):
        work()
    assert time.monotonic() - start >= 0.5


def test_no_machine_is_so_busy_that_a_limit_never_comes(monkeypatch):
    monkeypatch.setattr(limits, "waited", lambda path: 100 * time.monotonic())
    with pytest.raises(TimeLimit), time_limit(0.1):
        work()


def test_sleep_counts():
    start = time.monotonic()
    with pytest.raises(TimeLimit), time_limit(0.2):
        time.sleep(60)
    assert time.monotonic() - start < 30


def test_the_system_tells_how_long_a_thread_has_waited():
    assert limits.waited(f"/proc/self/task/{threading.get_native_id()}/schedstat") >= 0.0
    assert limits.waited("/proc/self/no-such-file") == 0.0


def test_the_systems_file_is_read_once_a_tick(monkeypatch):
    told = iter(range(10))
    monkeypatch.setattr(limits, "waited", lambda path: next(told))
    monkeypatch.setattr(limits, "_TICK", 60.0)
    with limits.budget(1_000.0):
        assert all(limits.left() <= 1_000 for _ in range(5))
    assert next(told) == 1


def test_a_checks_own_budget_waits_as_well_and_not_for_ever(monkeypatch):
    told = iter([0.0, 2.0, 100.0])
    monkeypatch.setattr(limits, "waited", lambda path: next(told))
    monkeypatch.setattr(limits, "_TICK", 0.0)  # else what was read a moment ago holds
    with limits.budget(10.0):
        assert 11 < limits.left() <= 12
        assert 39 < limits.left() <= 40
