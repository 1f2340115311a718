"""Tests that share costly results run in one process, where tests run side by side."""

from __future__ import annotations

import os
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


def test_a_group_stays_in_one_process(tmp_path):
    for name in ("one", "two", "three"):
        text = "import pytest\n\n@pytest.mark.parametrize('n', range(6))\ndef test_it(n):\n    pass\n"
        (tmp_path / f"test_{name}.py").write_text(text)
    options = ["-v", "-n", "2", "-p", "no:cacheprovider", "-p", "conftest", f"--rootdir={tmp_path}", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    out = subprocess.run([sys.executable, "-m", "pytest", *options], **run).stdout
    places = re.findall(r"^\[gw(\d)\].* PASSED (test_\w+)\.py::", out, re.MULTILINE)
    assert len(places) == 18, out
    assert len(set(places)) == 3, out
