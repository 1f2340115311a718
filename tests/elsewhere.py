"""Notebooks outside of the course's own environment: a copy of the course as a repository, packages, a kernel there.

With AUTOGRADE_OUTSIDE=FOLDER the tests that use this make real environments with pip, in FOLDER, where they stay:
minutes and gigabytes each. Without it they link packages of the environment that the tests run in: what they then don't
see is whether the packages can be installed, and other versions than ours.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError  # noqa: F401, what `ran` raises
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from autograde.classroom.sandbox.cgroups import group
from autograde.classroom.sandbox.isolation import Limits
from autograde.repository import ROOT, set_slug

OUTSIDE = os.environ.get("AUTOGRADE_OUTSIDE", "")
SLUG = "ada/course"
HANGS = 600  # seconds a cell: against a hang, not a measure


def published(folder: Path) -> Path:
    """The course as somebody publishes it: what git tracks, with a slug, as a repository of its own in `folder`."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not what is deleted and not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    set_slug(SLUG, folder)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "The course"]):
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *command], cwd=folder, check=True)
    return folder


def github(repository: Path) -> dict[str, str]:
    """Variables with which git takes `repository` for https://github.com/SLUG."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{SLUG}",
    }


def needed(packages: Iterable[str]) -> set[str]:
    """These packages and all that they pull in here, by their canonical names."""
    waiting, seen = [(line, ("",)) for line in packages], set()
    while waiting:
        line, extras = waiting.pop()
        requirement = Requirement(line)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name, wanted = canonicalize_name(requirement.name), ("", *sorted(requirement.extras))
        if (name, wanted) not in seen:
            seen.add((name, wanted))
            waiting += [(inner, wanted) for inner in importlib.metadata.requires(name) or []]
    return {name for name, _ in seen}


def linked(environment: Path, packages: Collection[str], shared: bool = False) -> Path:
    """A fresh environment in which nothing is but links to these packages of ours, and pip. Gives its Python.

    shared: with what packages have put into share/, such as JupyterLab's pages
    """
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    subprocess.run([str(base), "-m", "venv", str(environment)], check=True)
    old = ["-m", "pip", "uninstall", "-q", "-y", "setuptools"]  # an old one, which Python 3.11 brings
    subprocess.run([str(environment / "bin/python"), *old], check=True, capture_output=True)
    inside = next((environment / "lib").glob("python3*/site-packages"))
    for name in packages:
        distribution = importlib.metadata.distribution(name)
        home = Path(distribution.locate_file(""))
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (inside / top).exists():
                (inside / top).symlink_to(home / top)
    if shared:
        (environment / "share").mkdir(exist_ok=True)
        (environment / "share/jupyter").symlink_to(Path(sys.prefix, "share/jupyter"))
    return environment / "bin/python"


def made(environment: Path, python: str, *installs: list[str], folder: Path) -> Path:
    """A real environment by `pip install` in `folder`, or the one that stands there. Gives its Python."""
    place = environment / "bin/python"
    done = environment / "done"
    if not done.exists():
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
        for options in installs:
            subprocess.run([str(place), "-m", "pip", "install", "-q", *options], check=True, cwd=folder)
        done.touch()
    return place


def python_of(version: str) -> str | None:
    """A Python of this version ("3.12") on this machine."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return str(Path(sys.base_prefix, "bin", f"python{version}"))
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return str(pyenv[-1]) if pyenv else shutil.which(f"python{version}")


@dataclass
class Bounds:
    """Memory and processors for what is started by `prefix`. `by` says what bounds the memory."""

    prefix: list[str]
    by: str
    peak: Callable[[], float | None]  # gigabytes that all of it has held at once


@contextlib.contextmanager
def bounded(gigabytes: float) -> Iterator[Bounds]:
    """One processor, and so much memory for all processes together where a control group can be made.

    Else each process has a limit of its own on what it may allocate (RLIMIT_DATA), which is less strict.
    """
    processor = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    size = int(gigabytes * 2**30)
    first = Path("/sys/fs/cgroup/memory") / f"course-{os.getpid()}"
    enter = 'echo $$ > "$0" && exec "$@"'
    with contextlib.suppress(OSError):
        first.mkdir()
        try:
            (first / "memory.limit_in_bytes").write_text(str(size), encoding="ascii")
            most = first / "memory.max_usage_in_bytes"
            prefix = ["/bin/sh", "-c", enter, str(first / "cgroup.procs"), *processor]
            yield Bounds(prefix, "a control group, version 1", lambda: int(most.read_text()) / 2**30)
        finally:
            _removed(first)
        return
    if second := group(Limits(memory=size // 2**20, processes=500)):
        try:
            yield Bounds([*second.entered([]), *processor], "a control group, version 2", lambda: None)
        finally:
            second.close()
        return
    limit = f'ulimit -d {size // 1024}; exec "$0" "$@"'
    yield Bounds(["/bin/sh", "-c", limit, *processor], "RLIMIT_DATA, for each process", lambda: None)


def _removed(folder: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)


def ran(notebook: Path, command: list[str], jupyter: Path, **variables: str):
    """Run the notebook in its folder, in a kernel that `command` starts, past the cells that may raise.

    command:   a Python, and what stands before it
    jupyter:   a folder for the kernel's description
    variables: of the environment, beside the few that are kept of ours
    """
    spec = jupyter / "kernels/python3"
    spec.mkdir(parents=True, exist_ok=True)
    argv = [*command, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    told = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(told), encoding="utf-8")
    content = nbformat.read(notebook, as_version=4)
    place = {"metadata": {"path": str(notebook.parent)}}
    client = NotebookClient(content, timeout=HANGS, kernel_name="python3", resources=place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(jupyter))
        client.execute(env=variables_for(**variables))
    return content


def variables_for(**more: str) -> dict[str, str]:
    """The variables of a login, and what pip needs here; nothing of the environment that the tests run in."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LABKIT_CACHE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    ours = {k: v for k, v in os.environ.items() if k in kept or k.upper().startswith(("PIP_", "HTTP", "NO_PROXY"))}
    return {**ours, "LABKIT_NO_PROGRESS": "1", "OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **more}


def points(notebook) -> dict[str, tuple[float, float]]:
    """(earned, possible) of every check by its grade_id."""
    checks = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    found = {}
    for cell in checks:
        results = [o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result"]
        found[cell.metadata.nbgrader.grade_id] = (float(results[-1]), float(cell.metadata.nbgrader.points))
    return found
