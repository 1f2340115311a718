"""What .ci/run does before the tests: it fetches what is missing, where it can, and says what must be there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from autograde.repository import ROOT

RUN = ROOT / ".ci" / "run"
pytestmark = pytest.mark.skipif(os.name != "posix" or not RUN.exists(), reason="a shell, and a clone with .ci")
PYTHON = 'case "$1" in -c) exit 0 ;; esac\necho "insists on $AUTOGRADE_TESTS_INSIST: $*"'
ANKI = "insists on 1: course.py setup requirements-anki.txt\n"
APT = """echo "apt-get $*" >> "$ASKED"
case "$*" in *"$HAS") touch "$BIN/$HAS"; chmod +x "$BIN/$HAS" ;; *install*) exit 100 ;; esac"""


def programs(folder: Path, **texts: str) -> None:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    for name in ("bash", "sh", "dirname", "touch", "chmod"):
        (folder / name).symlink_to(shutil.which(name))


def run(folder: Path, has: str = "nothing") -> tuple[str, list[str]]:
    """What .ci/run starts in the end, and what it asks apt-get for. On its path is only what lies in `folder`."""
    asked = folder / "asked"
    env = {"PATH": str(folder), "BIN": str(folder), "ASKED": str(asked), "HAS": has}
    done = subprocess.run([RUN], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line.split()[-1] for line in asked.read_text().splitlines()] if asked.exists() else []


def test_with_all_there_nothing_is_fetched_and_everything_insisted_on(tmp_path):
    programs(tmp_path / "bin", python3=PYTHON, chromium="", chromedriver="", id="echo 0", **{"apt-get": APT})
    assert run(tmp_path / "bin") == (f"{ANKI}insists on 1: course.py test\n", [])


def test_a_missing_browser_is_fetched(tmp_path):
    programs(tmp_path / "bin", python3=PYTHON, chromedriver="", id="echo 0", **{"apt-get": APT})
    told, asked = run(tmp_path / "bin", has="chromium")
    assert "chromium" in asked and told == f"{ANKI}insists on 1: course.py test\n"


@pytest.mark.parametrize("who", ["0", "1000"])
def test_a_browser_that_cannot_be_had_is_not_insisted_on(tmp_path, who):
    programs(tmp_path / "bin", python3=PYTHON, id=f"echo {who}", **{"apt-get": APT})
    told, asked = run(tmp_path / "bin")
    assert told == f"{ANKI}insists on 1: course.py test\n".replace("on 1", "on sandbox")
    assert bool(asked) == (who == "0")


def test_what_is_insisted_on_fails_and_all_else_is_skipped_with_a_sentence(monkeypatch):
    import chromium
    import conftest

    class Item:
        fixturenames = ("browser",)

    def missing():
        raise chromium.NoBrowser("no browser")

    monkeypatch.setitem(conftest.NEEDS, "browser", missing)
    for insist, outcome in {"1": pytest.fail, "browser": pytest.fail, "sandbox": pytest.skip, "": pytest.skip}.items():
        monkeypatch.setenv(conftest.INSIST, insist)
        with pytest.raises(outcome.Exception, match="no browser"):
            conftest.pytest_runtest_setup(Item)
