"""`python course.py bench tests` says what the tests take, the slowest first."""

from __future__ import annotations

import subprocess
import sys

from autograde.repository import ROOT

TESTS = {
    "test_idle.py": "import time\n\ndef test_sleeps():\n    time.sleep(0.3)\n",
    "test_busy.py": """
import subprocess, sys
from types import SimpleNamespace
import pytest

SPIN = "import time\\nwhile time.process_time() < 0.5: pass"

@pytest.mark.parametrize("exercise", [SimpleNamespace(name="toy"), SimpleNamespace(name="other")], ids=["a", "b"])
def test_lets_another_process_work(exercise):
    if exercise.name == "toy":
        subprocess.run([sys.executable, "-c", SPIN], check=True)
""",
}


def test_files_and_exercises_are_listed_by_their_processor_time(tmp_path):
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "autograde.bench", "tests", str(tmp_path), f"--rootdir={tmp_path}", "--most=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.rpartition("peak so far\n")[2].splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[-5] for row in rows] == ["tests", "test_busy.py", "test_idle.py", "toy"]
    seconds = {row[-5]: float(row[-4]) for row in rows}
    assert seconds["test_idle.py"] < 0.3 < 0.4 <= seconds["toy"] <= seconds["test_busy.py"] <= seconds["tests"]
    assert all(0.01 < float(row[-2]) < 10 for row in rows)
