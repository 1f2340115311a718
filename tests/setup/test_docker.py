"""The Dockerfile: the same pins, an ordinary user, the port of a Space; built where something can build, if asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch

import elsewhere
import pytest

import course
import course_setup
from autograde.repository import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"\\\n", " ", TEXT).splitlines()
    if line.strip() and not line.startswith("#")
]
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]


def of(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def is_ignored(path: str) -> bool:
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatch(each, p) or fnmatch(each, p.removeprefix("**/")) for each in above for p in IGNORED)


def test_packages_come_from_the_courses_own_pins_alone():
    commands = of("RUN")
    assert commands[-1] == "python course.py setup"
    assert not any(word in command for command in commands for word in ("pip install", "conda", "curl", "wget"))
    assert not any(is_ignored(name) for name in course_setup.PINS)


def test_the_python_is_one_that_the_course_runs_on():
    version = re.fullmatch(r"python:3\.(\d+)-slim-\w+", of("FROM")[0])
    runtime = (ROOT / "binder/runtime.txt").read_text().strip()
    assert version and f"python-3.{version[1]}" == runtime


def test_every_copied_path_exists_and_belongs_to_the_user():
    for rest in of("COPY"):
        options, *paths, _ = re.findall(r"\S+", rest)
        assert options == "--chown=user:user"
        assert all((ROOT / path).exists() for path in paths)


def test_nothing_is_installed_or_run_by_root():
    names = [step for step, _ in STEPS]
    last = len(names) - 1 - names[::-1].index("USER")
    assert STEPS[last][1] == "user" and "--uid 1000 user" in of("RUN")[0]
    assert last < names.index("COPY") and last < names.index("CMD")
    assert of("WORKDIR")[0] in of("RUN")[0], "the user owns the folder, whoever makes it for WORKDIR"


def test_it_starts_jupyterlab_on_the_port_of_a_space(monkeypatch):
    started = []
    monkeypatch.setattr(course, "launch", lambda command, cwd, **variables: started.extend(command))
    monkeypatch.setattr(course_setup, "setup", lambda: None)
    program, script, *arguments = json.loads(of("CMD")[0])
    assert (program, script) == ("python", "course.py")
    course.main(arguments)
    assert f"--port={of('EXPOSE')[0]}" == "--port=7860" and {"--port=7860", "--ip=0.0.0.0"} <= set(started)
    assert not any("token" in each.lower() or "password" in each.lower() for each in started)
    assert not any("TOKEN" in each for each in of("ENV")), "the token stays: who opens the page can run code"


def test_all_that_git_tracks_is_copied_and_nothing_private():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    left_out = {path.split("/")[0] for path in tracked if path and is_ignored(path)}
    assert left_out <= {".ci"}
    for private in (".git/config", ".venv/bin/python", "my_class/secret", "labkit/__pycache__/x.pyc", ".home/x"):
        assert is_ignored(private), private


def builder() -> str | None:
    """What can build an image here: a program whose service answers."""
    for name in ("docker", "podman", "buildah"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    return None


if elsewhere.OUTSIDE:

    @pytest.mark.slow
    def test_it_builds():
        name = builder()
        if not name:
            pytest.skip("nothing here can build an image")
        build = [name, "build", "-t", "transformer-course-test", "."]
        assert subprocess.run(build, cwd=ROOT).returncode == 0
        told = subprocess.run([name, "run", "--rm", "transformer-course-test", "id", "-u"], capture_output=True)
        assert told.stdout.strip() == b"1000"
