"""One running sandbox: start it, watch its memory, end it."""

from __future__ import annotations

import contextlib
import os
import threading

from autograde.classroom.inside.frames import BadFrame, Channel, Closed, Late
from autograde.classroom.sandbox import seccomp
from autograde.classroom.sandbox.isolation import Limits, learners_uid
from autograde.classroom.sandbox.starting import started
from autograde.processes import memory

_LOOK = 0.25  # seconds between two looks at the memory


class SandboxFailed(OSError):
    """The sandbox did not come up, or can't be used any more."""


class Sandbox:
    """One running sandbox and the connection to the worker in it."""

    def __init__(self, kind: str, imports: str = "", limits: Limits | None = None):
        """Start it and wait until it is ready; raises SandboxFailed where it does not come up."""
        self.limits = limits or Limits()
        self.peak, self.stopped_for = 0, ""
        uid = learners_uid() if kind == "bubblewrap" else None
        self._started = started(kind, imports, self.limits)
        self.channel = Channel(self._started.incoming, self._started.outgoing, inputs="out")
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        settings = {
            "uid": uid,
            "alone": kind != "no sandbox",
            "limits": self.limits.resource_limits(uid is None),
            "filter": (seccomp.program() or b"").hex(),
            "imports": imports,
        }
        try:
            self.channel.send(settings, 60)
            self.channel.receive(180)
        except (Late, Closed, BadFrame) as error:
            told = self._started.last_words() or error
            self.close()
            raise SandboxFailed(f"the sandbox ({kind}) did not start: {told}") from None

    def _watch(self) -> None:
        """End the sandbox when all its processes together hold more memory than they may."""
        import psutil

        while not self._over.wait(_LOOK):
            try:
                process = psutil.Process(self._started.pid)
                below = process.children(recursive=True)
            except psutil.Error:
                continue
            # Pages that forks share count for each of them here, so that the costly exact answer is rarely needed.
            if sum(map(_anonymous, below)) > self.limits.memory * 2**20:
                used = memory(process)
                self.peak = max(self.peak, used)
                if used > self.limits.memory * 2**20:
                    self.stopped_for = f"used more than {self.limits.memory:,} MB of memory"
                    self._started.kill()
                    return

    def measure(self) -> int:
        """Bytes that all processes in the sandbox hold now, shared pages counted once."""
        import psutil

        with contextlib.suppress(psutil.Error):
            self.peak = max(self.peak, memory(psutil.Process(self._started.pid)))
        return self.peak

    def close(self) -> None:
        """End everything in it."""
        self._over.set()
        if self._watcher.is_alive() and self._watcher is not threading.current_thread():
            self._watcher.join()
        self._started.close()


def _anonymous(process) -> int:
    try:
        with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
            _, resident, shared = map(int, file.read().split()[:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
