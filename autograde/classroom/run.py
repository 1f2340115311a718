"""`autograde grade`: hand the submissions out, take the results in, and lose nothing on the way."""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from autograde.classroom.folder import Course, digests_of
from autograde.classroom.gradebook import Book, opened
from autograde.classroom.handout import grade_task
from autograde.classroom.journal import Journal, summary_of
from autograde.classroom.regrade import Regrade
from autograde.classroom.sandbox.isolation import Limits, engine
from autograde.classroom.scores import Standing, standing
from autograde.classroom.submission import Outline
from autograde.classroom.task import STAMP, Task, failed_result, seeds_of

NOTHING: dict = {"notebooks": {}}


def grade_section(
    course: Course,
    section: str,
    *,
    students: Sequence[str] = (),
    notebook: str = "",
    exercise: str = "",
    jobs: int = 0,
    scheduler: str = "",
    regrade: bool = False,
    unsafe: bool = False,
    limits: Limits | None = None,
    out=None,
) -> dict[str, dict]:
    """Grade what is not graded yet, and put all of it into the gradebook. Gives the latest result of each student.

    `students`, `notebook` and `exercise` narrow that down. `regrade` grades again what is graded, and goes on with
    such a regrade where it was interrupted, unless the course's exercises have changed since. Raises ValueError where
    something has to be mended first.
    """
    say = _Progress(out or sys.stderr)
    engine(unsafe)  # refuses before anything else is done
    outlines = course.outlines(section)
    names = [of.name for of in outlines]
    wanted = [of for of in course.outlines(section, notebook) if not exercise or exercise in of.points]
    if not wanted:
        raise ValueError(f"{section} has no exercise {exercise!r}.")
    known, odd = course.students(section)
    for name in odd:
        say.line(f"submitted/{name!r} is left out: that can't be a student's name.")
    if unknown := sorted(set(students) - set(known)):
        raise ValueError(f"{', '.join(unknown)} handed in nothing for {section}.")
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal(course, section))
        before = journal.latest()
        if not scheduler and (regrade or set(students or known) - set(before)):
            _server([name for of in wanted for name in of.points])  # it imports while the gradebook is opened
        gradebook = stack.enter_context(opened(course))
        book = Book(gradebook, course, section)
        book.enter_students()
        again = Regrade(course, section, [sorted(students), notebook, exercise, unsafe])
        done = again.begin(before, say.line) if regrade else again.tell(say.line)
        part_of = _due(course, section, students or known, names, before, wanted, exercise, regrade, done)
        due = [(student, part) for student, part in part_of.items() if part]

        def task_of(student: str, part: tuple) -> Task:
            """Made when its turn comes, so that a thousand submissions are never in memory together."""
            contents, problems = course.submitted(student, section, names)
            seeds = seeds_of(course.secret, student, [e for of in part for e in of.points])
            handed_in = (digests_of(contents, problems), part, contents, problems)
            return Task(student, section, *handed_in, seeds, unsafe, limits or Limits())

        _write_missing(book, before, say)
        say.start(len(due), len(students or known))
        parts = [part for _, part in due]
        with _executor(jobs or os.cpu_count() or 1, scheduler, parts) as executor:
            try:
                for result in _results(due, task_of, executor):
                    whole = _with_earlier(result, before.get(result["student"], NOTHING), outlines)
                    journal.add(whole | ({"regrade": again.began} if regrade else {}))
                    book.write(whole)
                    say.one(whole, standing(gradebook, section, whole["student"]))
            except KeyboardInterrupt:
                say.stopped()
                raise
        if regrade:
            again.end()
        say.summary()
        return journal.latest()


def _due(
    course: Course, section: str, students, names, before: dict, wanted, exercise: str, regrade: bool, done: set
) -> dict[str, tuple]:
    """Which of the wanted notebooks of each student are to be graded: those that aren't, or are other ones now.

    Of a notebook that is graded as it is, `exercise` alone is graded again.
    """
    due = {}
    for student in students:
        digests = digests_of(*course.submitted(student, section, names))
        graded = {n: found["digest"] for n, found in before.get(student, NOTHING)["notebooks"].items()}
        part = []
        for of in wanted:
            is_graded = graded.get(of.name) == digests[of.name]
            if is_graded and exercise:
                of = replace(of, points={exercise: of.points[exercise]})  # noqa: PLW2901
            if not is_graded or (regrade and student not in done):
                part.append(of)
        due[student] = tuple(part)
    return due


def _write_missing(book: Book, results: dict[str, dict], say: _Progress) -> None:
    """What is in the journal and not in the gradebook: there the grader was killed between the two."""
    for student, result in results.items():
        if not _is_booked(book, student, result):
            book.write(result)
            say.line(f"{student}: graded before, now in the gradebook")


def _is_booked(book: Book, student: str, result: dict) -> bool:
    from nbgrader.api import MissingEntry

    try:
        submission = book.gradebook.find_submission(book.section, student)
    except MissingEntry:
        return False
    scores = {grade.name: grade.auto_score for notebook in submission.notebooks for grade in notebook.grades}
    reports = [e["report"] for notebook in result["notebooks"].values() for e in notebook["exercises"]]
    folder = book.course.root / "autograded" / student / book.section
    return all((folder / f"{name}.ipynb").exists() for name in result["notebooks"]) and all(
        scores[f"check_{report['exercise']}"] == book.points.worth(report)[1]
        for report in reports
        if f"check_{report['exercise']}" in scores
    )


def _with_earlier(result: dict, earlier: dict, outlines: Sequence[Outline]) -> dict:
    """A result of some notebooks, or exercises in them, completed with an earlier one's, in the section's order."""
    notebooks = {**earlier["notebooks"], **result["notebooks"]}
    for of in outlines:
        if of.name in result["notebooks"] and of.name in earlier["notebooks"]:
            new, old = (
                {e["report"]["exercise"]: e for e in found["notebooks"][of.name]["exercises"]}
                for found in (result, earlier)
            )
            exercises = [new.get(name) or old[name] for name in of.points if name in new or name in old]
            if result["notebooks"][of.name]["digest"] == earlier["notebooks"][of.name]["digest"]:
                notebooks[of.name] = notebooks[of.name] | {"exercises": exercises}
    time_of = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return result | {
        "notebooks": {of.name: notebooks[of.name] for of in outlines if of.name in notebooks},
        "graded": time_of,
    }


def _results(due: Sequence[tuple], task_of: Callable[..., Task], executor) -> Iterator[dict]:
    """The results as they come. What ran in a grader process that died is tried once more, each by itself."""
    waiting, running, lost = list(due)[::-1], {}, []
    while waiting or running:
        while waiting and not lost and len(running) < executor.room:
            one = waiting.pop()
            try:
                running[executor.submit(grade_task, task_of(*one))] = one
            except BrokenProcessPool:
                lost.append(one)
        for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
            one = running.pop(future)
            try:
                yield future.result()
            except BrokenProcessPool:
                lost.append(one)
        if lost and not running:
            executor.renew()
            for one in lost:
                yield _alone(task_of(*one), executor)
            lost = []


def _alone(task: Task, executor) -> dict:
    try:
        return executor.submit(grade_task, task).result()
    except BrokenProcessPool:
        executor.renew()
        return failed_result(task, "The grader itself ended while it graded this.")


def _server(exercises: Sequence[str]):
    """Have the server run that the pool's processes are forked from; gives what a pool takes as its context.

    It imports what grading needs and calls the exercises' oracles, which takes seconds that nobody waits for here.
    """
    from multiprocessing import forkserver, get_context

    os.environ["AUTOGRADE_WARM"] = ",".join(exercises)
    context = get_context("forkserver")
    context.set_forkserver_preload(["autograde.classroom.warm", "labkit.rank"])
    forkserver.ensure_running()
    return context


class _Pool:
    """A process pool that can be renewed. Its processes end when this one is gone, however it went."""

    def __init__(self, jobs: int, exercises: Sequence[str]):
        self.jobs, self.room, self._pool = jobs, 2 * jobs, None  # the next task waits there while one is graded
        self.exercises = exercises
        self.renew()

    def renew(self) -> None:
        if self._pool:
            self.close()
        context = _server(self.exercises)
        self._pool = futures.ProcessPoolExecutor(self.jobs, context, initializer=_in_pool, initargs=(os.getpid(),))

    def submit(self, function, task):
        return self._pool.submit(function, task)

    def close(self) -> None:
        """End the processes at once: whoever closes the pool has all results, or wants no more."""
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Dask:
    """The same on a Dask cluster."""

    def __init__(self, address: str):
        from distributed import Client

        try:
            self.client = Client(address, timeout=8)
        except OSError:
            raise ValueError(f"No Dask scheduler answers at {address}.") from None
        self.executor = self.client.get_executor(pure=False)
        self.room = 4 * max(1, sum(self.client.nthreads().values()))

    def renew(self) -> None:
        """A cluster looks after its own workers."""

    def submit(self, function, task):
        return self.executor.submit(function, task)

    def close(self) -> None:
        self.client.close()


@contextlib.contextmanager
def _executor(jobs: int, scheduler: str, parts: Sequence[tuple]):
    exercises = list({name: None for part in parts for of in part for name in of.points})
    executor = _Dask(scheduler) if scheduler else _Pool(min(jobs, max(len(parts), 1)), exercises)
    try:
        yield executor
    finally:
        executor.close()


def _in_pool(parent: int) -> None:
    """End with the grader: a pool's process would wait for ever for work from one that was killed."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the grader, who ends its processes

    def watch() -> None:
        while _is_there(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


class _Progress:
    """Tells a line a student, with the time left, and a summary."""

    def __init__(self, out):
        self.out, self.started, self.done, self.todo, self.shares = out, time.monotonic(), 0, 0, []

    def line(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def start(self, todo: int, of: int) -> None:
        self.todo, self.started = todo, time.monotonic()
        there = of - todo
        self.line(f"{todo} to grade" + (f", {there} graded before" if there else ""))

    def one(self, result: dict, its: Standing) -> None:
        self.done += 1
        self.shares.append(its.total / (its.most or 1))
        spent = time.monotonic() - self.started
        left = spent / self.done * (self.todo - self.done)
        stamp = f" [{STAMP}]" if result["sandbox"] == STAMP else ""
        self.line(
            f"{self.done:>4}/{self.todo}  {result['student']}: {its.total:g} of {its.most:g}  "
            f"{summary_of(result)[:160]}{stamp}" + (f"  ({_span(left)} left)" if self.todo > self.done else "")
        )

    def stopped(self) -> None:
        self.line(
            f"Stopped: {self.done} of {self.todo} are graded and kept, {self.todo - self.done} are not. "
            "The same command goes on there."
        )

    def summary(self) -> None:
        if self.shares:
            spent = time.monotonic() - self.started
            self.line(
                f"{self.done} graded in {_span(spent)}, {spent / self.done:.1f} s each; median "
                f"{sorted(self.shares)[len(self.shares) // 2]:.0%} of the points"
            )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
