"""One running sandbox: start it, watch its memory, end it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading

from autograde.classroom import seccomp
from autograde.classroom.frames import BadFrame, Channel, Closed, Late
from autograde.classroom.isolation import (
    COURSE,
    PACKAGE,
    START,
    Limits,
    bubblewrap_command,
    container_command,
    environment,
)
from autograde.processes import memory

_FIRST_UID = 1_500_000_000  # far from anybody's; each sandbox has its own, since limits on processes count by user
_LOOK = 0.25  # seconds between two looks at the memory


class SandboxFailed(OSError):
    """The sandbox did not come up, or can't be used any more."""


class Sandbox:
    """One running sandbox and the connection to the worker in it."""

    def __init__(self, kind: str, imports: str = "", limits: Limits | None = None):
        """Start it and wait until it is ready; raises SandboxFailed where it does not come up."""
        self.kind, self.limits = kind, limits or Limits()
        self.peak, self.stopped_for = 0, ""
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        self._uid = _FIRST_UID + os.getpid() if kind == "bubblewrap" and root else None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the sandbox
        self._process = self._started()
        self.channel = Channel(self._process.stdout.fileno(), self._process.stdin.fileno(), inputs="out")
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        settings = {
            "uid": self._uid,
            "alone": kind != "no sandbox",
            "limits": self.limits.resource_limits(self._uid is None),
            "imports": imports,
        }
        try:
            self.channel.send(settings, 60)
            self.channel.receive(180)
        except (Late, Closed, BadFrame) as error:
            told = self._last_words() or error
            self.close()
            raise SandboxFailed(f"the sandbox ({kind}) did not start: {told}") from None

    def _started(self) -> subprocess.Popen:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log, "bufsize": 0}
        if self.kind == "bubblewrap":
            program = seccomp.program()
            with tempfile.TemporaryFile() as file:
                file.write(program or b"")
                file.seek(0)
                number = file.fileno() if program else None
                command = bubblewrap_command(self.limits, number)
                passed = (number,) if program else ()
                return subprocess.Popen(command, env=environment(COURSE), pass_fds=passed, cwd="/", **options)
        if self.kind == "no sandbox":
            surroundings = environment(str(PACKAGE.parent))
            return subprocess.Popen(
                [sys.executable, "-c", START], env=surroundings, start_new_session=True, cwd=tempfile.gettempdir(),
                **options,
            )  # fmt: skip
        uid = os.getuid() or 65534
        return subprocess.Popen(container_command(self.kind, self.limits, uid), **options)

    def _watch(self) -> None:
        """End the sandbox when all its processes together hold more memory than they may."""
        import psutil

        while not self._over.wait(_LOOK):
            try:
                process = psutil.Process(self._process.pid)
                below = process.children(recursive=True)
            except psutil.Error:
                continue
            # Pages that forks share count for each of them here, so that the costly exact answer is rarely needed.
            if sum(map(_anonymous, below)) > self.limits.memory * 2**20:
                used = memory(process)
                self.peak = max(self.peak, used)
                if used > self.limits.memory * 2**20:
                    self.stopped_for = f"used more than {self.limits.memory:,} MB of memory"
                    self._kill()
                    return

    def measure(self) -> int:
        """Bytes that all processes in the sandbox hold now, shared pages counted once."""
        import psutil

        with contextlib.suppress(psutil.Error):
            self.peak = max(self.peak, memory(psutil.Process(self._process.pid)))
        return self.peak

    def _kill(self) -> None:
        """Bubblewrap's process namespace dies with it; without one, the whole process group goes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.kind == "no sandbox":
                os.killpg(self._process.pid, 9)
            self._process.kill()

    def close(self) -> None:
        """End everything in it."""
        self._over.set()
        self._kill()
        self._process.wait()
        self._log.close()
        for end in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                end.close()
        if self._watcher.is_alive() and self._watcher is not threading.current_thread():
            self._watcher.join()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read(20_000).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def _anonymous(process) -> int:
    try:
        with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
            _, resident, shared = map(int, file.read().split()[:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
