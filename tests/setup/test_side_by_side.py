"""Tests that share costly results run in one process, where tests run side by side."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from autograde.repository import ROOT


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/labkit/test_text.py::test_a[3]", "test_text"),
        ("tests/exercises/test_exercises.py::test_a[softmax-3]", "test_exercises/softmax"),
        ("tests/exercises/test_exercises.py::test_a[softmax]", "test_exercises/softmax"),
        ("tests/exercises/test_exercises.py::test_a", "test_exercises"),
        ("tests/authoring/test_notebooks.py::test_a[01_transformer/04_rope]", "test_notebooks/01_transformer/04_rope"),
    ],
)
def test_what_belongs_together(nodeid, group):
    from conftest import group_of

    assert group_of(nodeid) == group


def test_a_group_stays_in_one_process():
    chosen = ["tests/setup/test_bench_seeds.py", "tests/labkit/test_text.py", "tests/labkit/test_timeline.py"]
    command = [sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", *chosen]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    places = set(re.findall(r"^\[(gw\d)\].* (tests/\S+?\.py)::", out, re.MULTILINE))
    assert {path for _, path in places} == set(chosen), out
    assert len(places) == len(chosen), places
