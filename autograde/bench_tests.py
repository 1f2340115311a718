"""Processor time and memory of the tests, by file and by exercise: `python course.py bench tests`."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass

import psutil
import pytest


@dataclass
class Used:
    """What some tests took: seconds of processors, and how many bytes their process has held at most so far."""

    tests: int = 0
    seconds: float = 0.0
    peak: int = 0

    def add(self, seconds: float) -> None:
        self.tests, self.seconds, self.peak = self.tests + 1, self.seconds + seconds, peak_memory()


class Meter:
    """A pytest plugin that adds up what tests take: in all, by file, and by the exercise that they are about."""

    def __init__(self):
        self.all, self.files, self.exercises = Used(), defaultdict(Used), defaultdict(Used)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None):
        start = processor_seconds()
        try:
            return (yield)
        finally:
            seconds = processor_seconds() - start
            params = item.callspec.params if hasattr(item, "callspec") else {}
            exercise = getattr(params.get("exercise"), "name", None)
            for used in (self.all, self.files[item.nodeid.partition("::")[0]]):
                used.add(seconds)
            if exercise:
                self.exercises[exercise].add(seconds)

    def table(self, most: int) -> str:
        """All files and the `most` slowest exercises, the slowest first."""
        rows = [("all tests", self.all), *_slowest(self.files), *_slowest(self.exercises)[:most]]
        width = max(len(name) for name, _ in rows)
        lines = [f"{'':{width}}  processor seconds    tests  peak so far"]
        lines += [f"{name:{width}}  {u.seconds:17.2f}  {u.tests:7}  {u.peak / 1e9:8.2f} GB" for name, u in rows]
        return "\n".join(lines)


def _slowest(used: dict[str, Used]) -> list[tuple[str, Used]]:
    return sorted(used.items(), key=lambda item: -item[1].seconds)


def processor_seconds() -> float:
    """Of this process and all below it, those included that have ended and whose parent has noticed."""
    me, total = psutil.Process(), 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        total += times.user + times.system + ended
    return total


def peak_memory() -> int:
    """The most bytes that this process has held."""
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main(argv: list[str]) -> int:
    """Run the tests in this one process, show the table, and give pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python course.py bench tests", description=__doc__)
    parser.add_argument("--most", type=int, default=25, metavar="N", help="show the N slowest exercises (25)")
    parser.epilog = "All else goes to pytest, which chooses the tests: bench tests tests/exercises -k rope"
    options, chosen = parser.parse_known_args(argv)
    meter = Meter()
    code = pytest.main(["-q", *chosen], plugins=[meter])
    print("\n" + meter.table(options.most))
    return int(code)
