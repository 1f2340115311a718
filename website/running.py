"""Run the solved chapters whose outputs are missing or old, a process each, and keep what they gave."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from autograde.authoring import build
from autograde.repository import ROOT
from website import runs

HANGS = 600  # seconds a cell: against a hang, not a measure
JOBS = min(os.cpu_count() or 1, 4)


def run_missing(solved: dict[str, NotebookNode], say: Callable[[str], None]) -> None:
    """Run every chapter of `solved` (path -> notebook with solutions) that has no run of its present code.

    A chapter that fails is kept as failed, and the others go on. Stopped half-way, it goes on there the next time.
    """
    todo = [path for path, notebook in solved.items() if not _is_good(path, notebook)]
    if not todo:
        return
    minutes = -(-len(todo) // (2 * JOBS))  # half a minute a chapter
    say(f"Running {len(todo)} of {len(solved)} chapters, once: about {minutes} minute{'s' * (minutes != 1)}.")
    everyone = _Processes()
    with ThreadPoolExecutor(JOBS) as pool:
        try:
            waiting = {pool.submit(everyone.run, path): path for path in todo}
            for number, done in enumerate(as_completed(waiting), start=1):
                say(f"{number:3} of {len(todo)}  {waiting[done]:35} {done.result()}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            everyone.stop()
            raise


def _is_good(path: str, notebook: NotebookNode) -> bool:
    run = runs.kept(path, runs.key(notebook))
    return run is not None and not run.failed


class _Processes:
    """A process for each chapter. Once they are stopped, nothing is kept any more of what they were at."""

    def __init__(self):
        self.started: list[subprocess.Popen] = []
        self.stopped = False

    def run(self, path: str) -> str:
        """Run one chapter and keep what it gave; how long it took, or what went wrong, in one line."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            # A session of its own: Ctrl-C reaches this process alone, which ends the others.
            options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
            command = [sys.executable, "-m", "website.running", path, place]
            process = subprocess.Popen(command, cwd=ROOT, env=_environment(), text=True, **options)
            self.started.append(process)
            _, told = process.communicate()
            run = runs.read(path, Path(place))
        if run is None or self.stopped:
            return f"ended before its time: {(told.strip().splitlines() or ['no word about why'])[-1]}"
        runs.keep(path, run)
        return run.failed or f"{time.monotonic() - start:.0f} s"

    def stop(self) -> None:
        self.stopped = True
        for process in self.started:
            process.terminate()


def _environment() -> dict[str, str]:
    # One thread a chapter: two that share two cores would wait for each other in every matrix product.
    env = {**os.environ, "LABKIT_NO_PROGRESS": "1", "LABKIT_KNOBS": "0", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return env


def execute(notebook: NotebookNode) -> tuple[dict, str]:
    """Run a notebook from top to bottom in a folder of its own: its outputs, and where it failed which cell and how."""
    with tempfile.TemporaryDirectory() as place:
        options = {"kernel_name": "python3", "timeout": HANGS, "resources": {"metadata": {"path": place}}}
        client = NotebookClient(notebook, **options)
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            how = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else type(error).__name__
            return {}, f"{_where(notebook)} failed: {' '.join(how.split())[:200]}"
    return runs.outputs_of(notebook), ""


def _where(notebook: NotebookNode) -> str:
    """The last cell that was begun, in words."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    begun = [cell for cell in cells if cell.get("execution_count") or cell.get("outputs")] or cells[:1]
    first = next((line for line in begun[-1].source.splitlines() if line.strip()), "")
    return f"code cell {cells.index(begun[-1]) + 1} ({first.strip()[:60]!r})"


def main(path: str, folder: str) -> int:
    """Run one chapter, and put what it gave below `folder`."""
    solved = nbformat.from_dict(build.sources(ROOT, [path])[path])
    key = runs.key(solved)
    runs.keep(path, runs.Run(key, *execute(solved)), Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
