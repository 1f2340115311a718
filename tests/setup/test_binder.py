"""Binder, as far as it goes without Binder: an environment from its own files, its start script, its memory.

repo2docker's steps for binder/: the Python of runtime.txt, `pip install -r requirements.txt`, postBuild, and each
command of a session through start. Here the Python is ours, and the packages are links to ours, of just the closure of
its requirements.txt; with AUTOGRADE_OUTSIDE=FOLDER they are Binder's, and pip installs them. Not seen at all: conda,
the image's system, its network.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import elsewhere
import pytest
from packaging.requirements import Requirement
from real_course import sources

from autograde.authoring.build import as_text
from autograde.repository import ROOT, binder_url

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("taskset"), reason="taskset is Linux's")]
CHAPTERS = ["00_start_here", "01_transformer/04_rope", "02_applications/02_sampling", "03_data_parallel/02_all_reduce"]
MODELS = "requirements-models.txt"
GIGABYTES = 2.0  # for all processes of a session: https://mybinder.readthedocs.io/en/latest/about/faq.html


def listed(file: Path) -> list[str]:
    """The requirements in a file and in those that it names."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        line = line.partition(" #")[0].strip()
        if line.startswith("-r "):
            found += listed(file.parent / line[3:])
        elif line and line[0] not in "#-":
            found.append(line)
    return found


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """(the repository as in the image, the environment's Python)."""
    home = elsewhere.published(tmp_path_factory.mktemp("binder") / "course")
    version = (home / "binder/runtime.txt").read_text().strip().removeprefix("python-")
    if elsewhere.OUTSIDE:
        python = elsewhere.python_of(version)
        assert python, f"this machine has no Python {version}"
        wanted = ["--no-cache-dir", "-r", "binder/requirements.txt"]
        python = elsewhere.made(Path(elsewhere.OUTSIDE, "binder"), python, wanted, folder=home)
    else:
        assert not [line for line in listed(home / "binder/requirements.txt") if "==" not in line]
        models = {
            Requirement(line).name for line in listed(home / MODELS)
        }  # which are installed without what they need
        packages = elsewhere.needed(listed(home / "binder/requirements.txt")) | models
        python = elsewhere.linked(home.parent / "environment", packages, shared=True)
    subprocess.run(
        [str(home / "binder/postBuild")], cwd=home, env=inside(python), check=True, stdout=subprocess.DEVNULL
    )
    return home, python


def inside(python: Path) -> dict[str, str]:
    found = elsewhere.variables_for()
    return found | {"PATH": f"{python.parent}:{found['PATH']}"}


@pytest.fixture(scope="module")
def session(image):
    """JupyterLab as Binder starts it: (its address, the command that starts a program beside it, the bounds)."""
    home, python = image
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    options = ["--no-browser", "--allow-root", f"--port={address.rpartition(':')[2]}", "--IdentityProvider.token="]
    with elsewhere.bounded(GIGABYTES) as bounds, open(home.parent / "server.log", "w+", encoding="utf-8") as log:
        start = [*bounds.prefix, str(home / "binder/start")]
        command = [*start, str(python), "-m", "jupyterlab", *options]
        with subprocess.Popen(command, cwd=home, env=inside(python), stdout=log, stderr=log) as server:
            try:
                wait_for(address, server, log)
                yield address, start, bounds
            finally:
                server.terminate()


def wait_for(address: str, server: subprocess.Popen, log) -> None:
    while server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api/status", timeout=60):
            return
        time.sleep(0.1)
    log.seek(0)
    pytest.fail(f"JupyterLab has ended:\n{log.read()}")


def test_the_link_on_the_badge_opens_the_start_page(session, image):
    address, _, bounds = session
    path = binder_url().partition("urlpath=")[2]
    with urllib.request.urlopen(f"{address}/{path}", timeout=60) as reply:
        page = reply.read().decode()
    assert reply.status == 200 and "jupyter-config-data" in page
    with urllib.request.urlopen(
        f"{address}/api/contents/{path.partition('lab/tree/')[2]}?content=0", timeout=60
    ) as reply:
        assert json.load(reply)["type"] == "notebook"
    settings = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert settings["disabledExtensions"], "start leads to the settings in jupyter/"
    print(f"memory is bounded by {bounds.by}")


@pytest.mark.parametrize("path", CHAPTERS)
def test_a_notebook_of_each_section_runs_in_two_gigabytes(session, image, tmp_path, path):
    _, start, bounds = session
    home, python = image
    solved = home / "notebooks" / f"{path}.ipynb"
    solved.write_text(as_text(sources()[path]), encoding="utf-8")
    begun = time.monotonic()
    notebook = elsewhere.ran(solved, [*start, str(python)], tmp_path, **inside(python))
    earned = elsewhere.points(notebook)
    assert earned and all(got == most for got, most in earned.values()), earned
    used = bounds.peak()
    told = "" if used is None else f", {used:.2f} GB at most, with files that are cached"
    print(f"{path}: {time.monotonic() - begun:.0f} s{told}, {bounds.by}")


def test_start_sets_one_thread_and_the_courses_settings(image):
    home, python = image
    code = "import json, os, sys; print(json.dumps([dict(os.environ), sys.prefix]))"
    told = subprocess.run(
        [str(home / "binder/start"), str(python), "-c", code],
        cwd=home,
        env=inside(python),
        capture_output=True,
        check=True,
    )
    variables, prefix = json.loads(told.stdout)
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["JUPYTER_CONFIG_PATH"].split(":")[0] == str(home / "jupyter")
    assert Path(prefix) == python.parents[1] and not prefix.startswith(str(ROOT))
