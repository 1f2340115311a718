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
from pathlib import Path

import psutil
from chromium import PATIENCE

from autograde.repository import ROOT

TOKEN = "learner"
GRACE = 60.0  # seconds that it may take to end
# course.py without its set-up: tests run in an environment that is made, and with the Python that they run with.
START = "import sys, course; course.PYTHON = sys.executable; sys.exit(course.lab(sys.argv[1:]))"


class Lab:
    """One learner's JupyterLab: `folder` has their home and their copy of the notebooks. It can be started again."""

    def __init__(self, folder: Path):
        self.notebooks, self._folder, self._process = folder / "notebooks", folder, None
        shutil.copytree(ROOT / "notebooks", self.notebooks)
        (folder / "home").mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve, and wait until there is an answer."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "LABKIT_", "XDG_"))}
        own = {"HOME": str(self._folder / "home"), "LABKIT_HOME": str(self._folder / "labkit"), "OMP_NUM_THREADS": "1"}
        options = ["--no-browser", f"--port={self._port}", "--ServerApp.port_retries=0"]
        options += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.notebooks}"]
        command, log = [sys.executable, "-c", START, *options], self._folder / "server.log"
        with open(log, "ab") as file:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
            self._process = subprocess.Popen(command, cwd=ROOT, env=kept | own, **quiet)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/api", timeout=PATIENCE):
                return
            time.sleep(0.05)
        raise AssertionError("JupyterLab does not answer:\n" + log.read_text(errors="replace")[-3000:])

    def stop(self) -> None:
        """End it and its kernels. One that is told to end while it starts a kernel may hang, and is killed."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                for process in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
                    process.kill()
                self._process.wait()
