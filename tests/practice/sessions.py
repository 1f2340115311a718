"""Commands driven as a user drives them: through a pipe, or through a terminal of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from autograde.repository import ROOT


def environment(home) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "LABKIT_NO_PROGRESS"}
    return env | {"LABKIT_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "100"}


def piped(module: str, arguments: list[str], typed: str, home, cwd) -> subprocess.CompletedProcess:
    """Run `python -m module` with lines typed into a pipe."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command,
        input=typed,
        cwd=cwd,
        env=environment(home),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=180,
    )


def at_a_terminal(module: str, arguments: list[str], home, cwd):
    """Start `python -m module` in a pseudo-terminal; a pexpect.spawn."""
    import pexpect

    command = ["-m", module, *arguments]
    size = (40, 100)
    return pexpect.spawn(
        sys.executable, command, cwd=str(cwd), env=environment(home), encoding="utf-8", timeout=60, dimensions=size
    )
