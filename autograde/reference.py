"""Every exercise's cell, as a stub and with the course's own solution: from `reference.json`, which the build makes."""

from __future__ import annotations

import functools
import json
import os
import pathlib

from autograde.regions import stubbed, unmarked

_FILE = pathlib.Path(__file__).with_name("reference.json")


def stub(name: str) -> str:
    """The cell of exercise `name` as the notebook was handed out. Raises KeyError where there is none."""
    return stubbed(_cells()[name])


def solution(name: str) -> str | None:
    """The cell of exercise `name` with the course's solution; None where solutions are not to be shown, or unknown.

    They are not where the environment has AUTOGRADE_NO_REVEAL=1, while nbgrader runs a submission, and in a course that
    was built with `reveal = false`.
    """
    off = os.environ.get("AUTOGRADE_NO_REVEAL", "0") not in ("", "0") or "NBGRADER_EXECUTION" in os.environ
    cell = None if off else _cells().get(name)
    return None if cell is None or cell == stubbed(cell) else unmarked(cell)


@functools.cache
def _cells() -> dict[str, str]:
    try:
        return json.loads(_FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
