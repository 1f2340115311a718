"""How soon `python course.py lab` shows the start page, and in how much memory: `python course.py bench lab`."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from autograde.processes import memory, share
from autograde.repository import ROOT

SECONDS, MEGABYTES, PATIENCE = 5.0, 400.0, 300.0
LAB = [sys.executable, str(ROOT / "course.py"), "lab"]
SHOWN = "return document.querySelectorAll('.jp-Notebook-cell .jp-RenderedMarkdown h1').length > 0"
IDLE = "return document.querySelectorAll('.jp-Notebook-ExecutionIndicator[data-status=idle]').length > 0"


def main(argv: list[str]) -> int:
    """Start JupyterLab some times, show the medians beside their budgets; 1 if it doesn't start, else 0."""
    parser = argparse.ArgumentParser(prog="python course.py bench lab", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="start it N times (3)")
    repeats = parser.parse_args(argv).repeats
    with contextlib.ExitStack() as stack:
        page = _browser(stack)
        rows = [_once(page, Path(stack.enter_context(tempfile.TemporaryDirectory()))) for _ in range(repeats)]
    names = ["the server answers", *["the start page is shown"] * bool(page)]
    for name, *values in zip(names, *[seconds for seconds, _ in rows], strict=True):
        print(f"{name:<24} {statistics.median(values):6.2f} s  (≤ {SECONDS:g} s)")
    held = statistics.median(bytes_held for _, bytes_held in rows) / 1e6
    print(f"{'server and its kernels':<24} {held:6.0f} MB (≤ {MEGABYTES:g} MB)")
    return 0


def _browser(stack: contextlib.ExitStack):
    """The browser of the tests, started; None where there is none."""
    sys.path.append(str(ROOT / "tests"))
    import chromium

    try:
        return stack.enter_context(chromium.started(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
    except chromium.NoBrowser as error:
        print(f"The start page is not looked at: {error}.", file=sys.stderr)
        return None


def _once(page, home: Path) -> tuple[list[float], float]:
    """Seconds from the command until the server answers and until its page is shown; bytes with an idle kernel."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = dict.fromkeys(("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "LABKIT_HOME"), str(home))
    options = ["--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=bench"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start, seconds = time.perf_counter(), []
    process = subprocess.Popen([*LAB, *options], cwd=ROOT, env=os.environ | own, **quiet)

    def until(true) -> None:
        while not true():
            if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                raise SystemExit("JupyterLab doesn't start: `python course.py lab` says why.")
            time.sleep(0.02)
        seconds.append(time.perf_counter() - start)

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=PATIENCE):
            return True
        return False

    try:
        until(answers)
        if page:
            page.get(f"http://127.0.0.1:{port}/?token=bench")
            until(lambda: page.execute_script(SHOWN))
            until(lambda: page.execute_script(IDLE))
        server = psutil.Process(process.pid)
        return seconds[:2], share(server) + memory(server)
    finally:
        process.terminate()
        process.wait()
