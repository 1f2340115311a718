"""One running sandbox: start it, watch its memory, end it."""

from __future__ import annotations

import contextlib
import threading
import time

from autograde.classroom.inside.frames import BadFrame, Channel, Closed, Late
from autograde.classroom.sandbox import seccomp
from autograde.classroom.sandbox.isolation import Limits, learners_uid
from autograde.classroom.sandbox.starting import started
from autograde.judging.limits import waited
from autograde.processes import memory

_LOOK = 0.25  # seconds between two looks at the memory
_SLOWEST = 0.25  # of the clock on the wall: a sandbox that is full of busy processes can't stop the time


class SandboxFailed(OSError):
    """The sandbox did not come up, or can't be used any more."""


class Sandbox:
    """One running sandbox and the connection to the worker in it."""

    def __init__(self, kind: str, imports: str = "", limits: Limits | None = None):
        """Start it and wait until it is ready; raises SandboxFailed where it does not come up."""
        self.limits = limits or Limits()
        self.peak, self.stopped_for = 0, ""
        self._since, self._waited, self._waits = time.monotonic(), 0.0, {}
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
            before, self._waits = self._waits, {child.pid: waited(f"/proc/{child.pid}/schedstat") for child in below}
            self._waited += max((now - before.get(pid, now) for pid, now in self._waits.items()), default=0.0)
            # Pages that forks share count for each of them here, so that the costly exact answer is rarely needed.
            if sum(map(_held, below)) > self.limits.memory * 2**20:
                used = memory(process)
                self.peak = max(self.peak, used)
                if used > self.limits.memory * 2**20:
                    self.stopped_for = f"used more than {self.limits.memory:,} MB of memory"
                    self._started.kill()
                    return

    def clock(self) -> float:
        """Seconds since it was started, without those in which it had to wait for a processor.

        That is what the system says of whichever process waited longest. At least a quarter of the wall's time passes.
        """
        passed = time.monotonic() - self._since
        return max(passed - self._waited, _SLOWEST * passed)

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


def _held(process) -> int:
    """Bytes of memory that a process alone may hold: its own, and what it shares with others but with no file."""
    try:
        with open(f"/proc/{process.pid}/status", encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file if line.startswith(("RssAnon:", "RssShmem:"))]
        return 1024 * sum(int(line[1]) for line in lines)
    except (OSError, ValueError):
        return 0
