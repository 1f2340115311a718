"""Notebooks outside of the course's own environment: a copy of the course as a repository, packages, a kernel there.

With AUTOGRADE_OUTSIDE=FOLDER the tests that use this make real environments with pip, in FOLDER, where they stay:
minutes and gigabytes each. Without it they link packages of the environment that the tests run in.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    waiting, found = [*packages], set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            inner = Requirement(line)
            if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                waiting.append(line.partition(";")[0])
    return found


def linked(environment: Path, packages: Collection[str]) -> Path:
    """A fresh environment in which nothing is but links to these packages of ours, and pip. Gives its Python."""
    subprocess.run(["python3", "-m", "venv", str(environment)], check=True, env=_base())
    inside = next((environment / "lib").glob("python3*/site-packages"))
    for name in packages:
        distribution = importlib.metadata.distribution(name)
        home = Path(distribution.locate_file(""))
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (inside / top).exists():
                (inside / top).symlink_to(home / top)
    return environment / "bin/python"


def _base() -> dict[str, str]:
    """Our variables, with the Python first from which our environment was made."""
    import sys

    return {**os.environ, "PATH": f"{Path(sys.base_prefix, 'bin')}{os.pathsep}{os.environ['PATH']}"}


def ran(notebook: Path, python: Path | list[str], jupyter: Path, **variables: str):
    """Run the notebook in its folder, in a kernel of another Python, past the cells that may raise.

    python:    the interpreter, or a command that starts one
    jupyter:   a folder for the kernel's description
    variables: of the environment, beside the few that are kept of ours
    """
    spec = jupyter / "kernels/python3"
    spec.mkdir(parents=True, exist_ok=True)
    command = [*map(str, python if isinstance(python, list) else [python])]
    argv = [*command, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    told = {"argv": argv, "display_name": "Python 3", "language": "python", "env": variables}
    (spec / "kernel.json").write_text(json.dumps(told), encoding="utf-8")
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LABKIT_CACHE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    ours = {name: value for name, value in os.environ.items() if name in kept or name.startswith(("PIP_", "HTTP"))}
    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        content, timeout=HANGS, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}
    )
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(jupyter)
    try:
        client.execute(env={**ours, **variables})
    finally:
        if before is None:
            del os.environ["JUPYTER_PATH"]
        else:
            os.environ["JUPYTER_PATH"] = before
    return content
