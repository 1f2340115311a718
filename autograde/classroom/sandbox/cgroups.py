"""A control group around a sandbox, where the system lets us make one (cgroups(7), version 2).

In there Linux itself bounds what all processes of a sandbox hold together, shared memory and files in memory included.
On a desktop or a server with systemd a user may make groups beside their own, and root may. Elsewhere (in most
containers, with version 1) there is none, and the grader looks at what the kernel reports (`process.py`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pathlib
import subprocess
import time

from autograde.classroom.sandbox.isolation import Limits

_ROOT = pathlib.Path("/sys/fs/cgroup")
_OWN = pathlib.Path("/proc/self/cgroup")
_SPARE = 16  # tasks of the sandbox itself
_PATIENCE = 2.0  # seconds that ended processes may take to leave
_ENTER = 'echo $$ > "$1" && shift && exec "$@"'
_count = itertools.count()


class Group:
    """A group below `parent` with a sandbox's limits. Raises OSError where it can't be made."""

    def __init__(self, parent: pathlib.Path, limits: Limits):
        _remove_left_over(parent)
        self.folder = parent / f"autograde-{os.getpid()}-{next(_count)}"
        self.folder.mkdir()
        bounds = {"memory.max": limits.memory * 2**20, "memory.swap.max": 0, "pids.max": limits.processes + _SPARE}
        try:
            for name, most in bounds.items():
                if name != "memory.swap.max" or (self.folder / name).exists():  # not where there is no swap
                    (self.folder / name).write_text(str(most), encoding="ascii")
        except OSError:
            self.close()
            raise

    def entered(self, command: list[str]) -> list[str]:
        """The command line that runs `command` in the group, from its first instruction on."""
        return ["/bin/sh", "-c", _ENTER, "sh", str(self.folder / "cgroup.procs"), *command]

    def close(self) -> None:
        """Remove the group, once the processes in it are gone."""
        end = time.monotonic() + _PATIENCE
        while self.folder.exists():
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            if time.monotonic() > end:
                return  # the next grader removes it
            time.sleep(0.01)


def group(limits: Limits) -> Group | None:
    """A new group for a sandbox, or None where the system has none for us."""
    parent = _parent()
    return Group(parent, limits) if parent else None


@functools.cache
def _parent() -> pathlib.Path | None:
    """The folder in which groups can be made, found out by running something in one."""
    for folder in _candidates():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            tried = Group(folder, Limits())
            try:
                if subprocess.run(tried.entered(["/bin/true"]), capture_output=True, timeout=10).returncode == 0:
                    return folder
            finally:
                tried.close()
    return None


def _candidates() -> list[pathlib.Path]:
    """The groups above our own whose members are bounded in memory and processes, the nearest first."""
    try:
        lines = _OWN.read_text(encoding="ascii").splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    except (OSError, StopIteration, ValueError):
        return []
    above = [_ROOT / own, *(_ROOT / own).parents]
    return [folder for folder in above if folder.is_relative_to(_ROOT) and {"memory", "pids"} <= _passed_on(folder)]


def _passed_on(folder: pathlib.Path) -> set[str]:
    """The controllers that a group has for those below it. That is never changed here."""
    try:
        return set((folder / "cgroup.subtree_control").read_text(encoding="ascii").split())
    except OSError:
        return set()


def _remove_left_over(parent: pathlib.Path) -> None:
    """Groups of graders that were killed. The system removes none in which there is still somebody."""
    for folder in parent.glob("autograde-*-*"):
        with contextlib.suppress(OSError, ValueError):
            if not pathlib.Path(f"/proc/{int(folder.name.split('-')[1])}").exists():
                folder.rmdir()
