"""CONTRIBUTING.md, followed to the letter in a copy of the course."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from autograde.repository import ROOT

pytestmark = pytest.mark.slow
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# "New file `a/b.py`:" or "In `a/b.py`, …:" or "At the end of `a/b.py`, …:", and the block under it.
STEP = re.compile(r"(?m)^(New file|In|At the end of) `([^`]+)`[^\n]*:\n\n```python\n(.*?)^```$", re.S)
# How the guide's commands are called here, without the set-up that a copy would make.
COMMANDS = {"build": ["-m", "autograde.cli", "build"], "test": ["-m", "pytest", "-q", "-p", "no:cacheprovider"]}


def test_the_guide_works_to_the_letter(tmp_path):
    copy = tmp_path / "course"
    left_out = shutil.ignore_patterns(".venv*", ".git", "__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=left_out)
    steps = STEP.findall(GUIDE)
    assert [how for how, _, _ in steps] == ["New file", "In", "At the end of"]
    for how, name, block in steps:
        path = copy / name
        assert path.exists() == (how != "New file")
        before = path.read_text(encoding="utf-8") if how == "At the end of" else ""
        path.write_text(before + block, encoding="utf-8")
    commands = re.findall(r"(?m)^python course\.py (\w+)(.*)$", re.search(r"```bash\n(.*?)```", GUIDE, re.S).group(1))
    assert [name for name, _ in commands] == ["build", "test"]
    said = [called(copy, [*COMMANDS[name], *options.split()]) for name, options in commands]
    assert "wrote notebooks/01_transformer/01_attention.ipynb" in said[0]
    assert int(re.search(r"(\d+) passed", said[1]).group(1)) >= 8 and "failed" not in said[1]
    made = nbformat.read(copy / "notebooks/01_transformer/01_attention.ipynb", as_version=4)
    assert any("def mean_pool" in cell.source and "NotImplementedError" in cell.source for cell in made.cells)


def called(folder, arguments: list[str]) -> str:
    env = {**os.environ, "PYTHONPATH": str(folder)} | {"PYTEST_ADDOPTS": ""}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
