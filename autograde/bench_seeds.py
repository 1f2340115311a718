"""`python course.py bench seeds`: is a right solution ever refused? The reference and every alternative on many seeds.

The tests of the grader ask twenty seeds. This asks as many as there is time for, and prints what was refused with the
seed, so that `grade(find(name), solution, seed)` shows it again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

from autograde.authoring.chapter import all_chapters
from autograde.exercises import find, names, order
from autograde.repository import ROOT

_CHUNK = 50  # seeds a task


def main(arguments: list[str] | None = None) -> int:
    """Print one line an exercise; the exit status is 1 where a right solution was refused."""
    parser = argparse.ArgumentParser(prog="course.py bench seeds", description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", metavar="EXERCISE", help="names (default: all that need no ranks)")
    parser.add_argument("--most", type=int, default=100, metavar="N", help="seeds for each (default: 100)")
    parser.add_argument("--first", type=int, default=1_000, metavar="N", help="the first seed (default: 1000)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="exercises at a time")
    options = parser.parse_args(arguments)
    chosen = options.exercises or [name for name in names() if not find(name).ranks]
    refused = 0
    # Ctrl-C is for the one that tells: the others only end.
    quiet = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    with concurrent.futures.ProcessPoolExecutor(options.jobs, **quiet) as pool:
        for name in chosen:
            starts = range(options.first, options.first + options.most, _CHUNK)
            ends = [min(start + _CHUNK, options.first + options.most) for start in starts]
            parts = pool.map(_refused, [name] * len(ends), starts, ends, [options.threads] * len(ends))
            asked, found = 0, []
            for number, some in parts:
                asked, found = asked + number, found + some
            refused += len(found)
            print(f"{name:32} {asked:7} asked  {len(found):4} refused", flush=True)
            for told in found[:5]:
                print(f"    {told}", flush=True)
    return 1 if refused else 0


def _refused(name: str, first: int, end: int, threads: int) -> tuple[int, list[str]]:
    """How often a right solution was asked, and what was refused."""
    import torch

    from autograde.judging.grading import grade

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    exercise = replace(find(name), forbid=(), limit=120.0)  # what is forbidden is a matter of the tests
    solutions = {"the reference": reference(name)}
    solutions |= {alternative.__name__: alternative for alternative in exercise.alternatives}
    asked, found = 0, []
    for seed in range(first, end):
        for solution, function in solutions.items():
            report = grade(exercise, function, seed)
            asked += 1
            if not report.solved:
                broken = next(line for line in report.lines if not line.passed)
                found.append(f"seed {seed}, {solution}: {broken.name}: {broken.note}")
    return asked, found


def reference(name: str) -> Callable:
    """The solution that stands in the exercise's chapter."""
    space: dict = {"__name__": "reference"}
    for source in _cells_up_to(name):
        exec(source, space)
    return space[name]


def _cells_up_to(name: str) -> Iterator[str]:
    chapter = next(c for c in all_chapters(ROOT) if c.exercises and name in order(c.exercises))
    for cell in chapter.cells:
        if cell.kind in ("setup", "exercise"):
            yield cell.source
        if cell.name == name and cell.kind == "exercise":
            return
