"""The processes of a sandbox: started for one student alone, or forked from a zygote that many students share.

Torch and the course's libraries take more than a second to import. A zygote does that once, and each student's worker
is a fork of it in namespaces of its own (`autograde.classroom.inside.zygote`). Where the system doesn't allow that, and
in podman, docker and without a sandbox, each student's worker starts by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile

from autograde.classroom.inside.spaces import SCRATCH
from autograde.classroom.sandbox.cgroups import Group, group
from autograde.classroom.sandbox.isolation import (
    COURSE,
    PACKAGE,
    START,
    Limits,
    bubblewrap_command,
    container_command,
    environment,
    python_folders,
)

_START = 180  # seconds that a zygote's imports may take
_ANSWER = 30
_count = itertools.count()


class CannotShare(OSError):
    """No zygote here: each worker has to start by itself."""


class Alone:
    """A worker that starts by itself. `pid` and what is below it is the student's; it reads and writes two pipes."""

    def __init__(self, kind: str, limits: Limits):
        self.kind, self._group = kind, None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        if kind == "no sandbox":
            options = {"env": environment(str(PACKAGE.parent)), "cwd": tempfile.gettempdir(), "start_new_session": True}
            self._process = subprocess.Popen([sys.executable, "-c", START], stderr=self._log, **options, **pipes)
        elif kind == "bubblewrap":
            self._group = group(limits)
            self._process = _bubblewrapped(limits, self._group, stderr=self._log, **pipes)
        else:
            self._name = f"autograde-{os.getpid()}-{next(_count)}"
            command = container_command(kind, limits, self._name)
            self._process = subprocess.Popen(command, stderr=self._log, **pipes)
        self.pid = self._process.pid
        self.incoming, self.outgoing = self._process.stdout.fileno(), self._process.stdin.fileno()

    def kill(self) -> None:
        """Bubblewrap takes its process namespace along; a container has to be told; else the whole group goes."""
        if self.kind not in ("bubblewrap", "no sandbox"):
            subprocess.run([self.kind, "kill", self._name], capture_output=True, stdin=subprocess.DEVNULL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.kind == "no sandbox":
                os.killpg(self.pid, 9)
            self._process.kill()

    def close(self) -> None:
        """End it, and wait until it is gone."""
        self.kill()
        self._process.wait()
        if self._group:
            self._group.close()
        self._log.close()
        for end in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                end.close()

    def last_words(self) -> str:
        """The last line that it wrote before it could say anything else."""
        return _last_line(self._log)


class Turn:
    """One student's turn with the zygote: the same interface as `Alone`."""

    def __init__(self, zygote: Zygote):
        """Raises CannotShare."""
        self._zygote, self.pid = zygote, zygote.pid
        (theirs_in, self.outgoing), (self.incoming, theirs_out) = os.pipe(), os.pipe()
        try:
            zygote.begin(theirs_in, theirs_out)
        except CannotShare:
            self.close()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def kill(self) -> None:
        """End the student's processes, and nothing else."""
        self._zygote.end()

    def close(self) -> None:
        """End the turn."""
        self.kill()
        os.close(self.incoming)
        os.close(self.outgoing)

    def last_words(self) -> str:
        return ""


class Zygote:
    """The shared sandbox of one process of the grader, which grades one student at a time."""

    def __init__(self, imports: str, limits: Limits):
        """Raises CannotShare where it does not come up."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the zygote
        with theirs:
            pipes = {"stdin": theirs, "stdout": subprocess.DEVNULL, "stderr": self._log}
            self._group = group(limits)
            self._process = _bubblewrapped(limits, self._group, for_all=True, **pipes)
        self.pid, self._busy = self._process.pid, False
        kept = [folder for folder in python_folders() if folder.startswith(tuple(f"{place}/" for place in SCRATCH))]
        self._ask({"imports": imports, "kept": kept, "size": limits.disk * 2**20}, (), _START)

    def begin(self, theirs_in: int, theirs_out: int) -> None:
        """A new worker at the other ends of two pipes. Raises CannotShare."""
        said = self._ask({"do": "begin"}, (theirs_in, theirs_out), _ANSWER)
        if said["failed"]:
            raise CannotShare(said["failed"])
        self._busy = True

    def end(self) -> None:
        """End what `begin` began."""
        if self._busy:
            self._busy = False
            with contextlib.suppress(CannotShare):
                self._ask({"do": "end"}, (), _ANSWER)

    @property
    def usable(self) -> bool:
        return self._process.poll() is None and self._control.fileno() >= 0

    def close(self) -> None:
        """End it, and whatever runs in it."""
        self._process.kill()
        self._process.wait()
        if self._group:
            self._group.close()
        self._control.close()
        self._log.close()

    def _ask(self, order: dict, handles: tuple[int, ...], seconds: float) -> dict:
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], handles)
            ready = select.select([self._control], [], [], seconds)[0]
            said = self._control.recv(2**16) if ready else b""
        except OSError:
            said = b""
        if not said:
            told = _last_line(self._log) or "it does not answer"
            self.close()
            raise CannotShare(told)
        return json.loads(said)


_shared: dict[tuple[str, Limits], Zygote] = {}
_refused = False


def started(kind: str, imports: str, limits: Limits) -> Alone | Turn:
    """A worker for one student, in the sandbox of that kind."""
    global _refused
    if kind == "bubblewrap" and not _refused:
        try:
            return Turn(_zygote(imports, limits))
        except CannotShare:
            _end_shared()
            _refused = True
    return Alone(kind, limits)


def _zygote(imports: str, limits: Limits) -> Zygote:
    known = _shared.get((imports, limits))
    if known is None or not known.usable:
        _end_shared()
        known = _shared[imports, limits] = Zygote(imports, limits)
    return known


def _end_shared() -> None:
    for zygote in _shared.values():
        zygote.close()
    _shared.clear()


atexit.register(_end_shared)


def _bubblewrapped(limits: Limits, around: Group | None, *, for_all: bool = False, **options) -> subprocess.Popen:
    command = bubblewrap_command(limits, for_all=for_all)
    command = around.entered(command) if around else command
    return subprocess.Popen(command, env=environment(COURSE), cwd="/", **options)


def _last_line(log) -> str:
    log.seek(0)
    lines = log.read(20_000).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
