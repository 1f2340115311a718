"""JupyterLab as `python course.py lab` starts it, for a learner of whom this machine knows nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from chromium import PATIENCE

from autograde.repository import ROOT

TOKEN = "learner"
# course.py without its set-up: tests run in an environment that is made, and with the Python that they run with.
START = "import sys, course; course.PYTHON = sys.executable; sys.exit(course.lab(sys.argv[1:]))"


def home(folder: Path) -> Path:
    """A new learner's home in `folder`, with a copy of the notebooks. Gives the notebooks' folder."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    (folder / "home").mkdir()
    return folder / "notebooks"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def lab(folder: Path, port: int) -> Iterator[str]:
    """Serve what `home` made at `folder` while this is open. Gives the address that opens the start page."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "LABKIT_", "XDG_"))}
    own = {"HOME": str(folder / "home"), "LABKIT_HOME": str(folder / "labkit"), "OMP_NUM_THREADS": "1"}
    options = ["--no-browser", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    command = [sys.executable, "-c", START, *options, f"--ServerApp.root_dir={folder / 'notebooks'}"]
    with open(folder / "server.log", "ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=kept | own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, f"http://127.0.0.1:{port}/api", folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # JupyterLab ends its kernels, too
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE):
            return
        time.sleep(0.05)
    raise AssertionError("JupyterLab does not answer:\n" + log.read_text(errors="replace")[-3000:])
