"""Soft time limits for code that runs in this process, and a budget for all of a check's calls together.

Time in which code waits for a processor is not its own: a busy machine costs nobody points, and sleeping does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

# Code that must not be torn out of the middle: it would leave torch's stack of modes in disorder.
_DELICATE = (
    str(pathlib.Path(__file__).with_name("forbidding.py")),
    str(pathlib.Path("torch", "overrides.py")),
    str(pathlib.Path("torch", "utils", "_python_dispatch.py")),
    contextlib.__file__,
)


class TimeLimit(BaseException):
    """Raised inside code that ran too long. Not an Exception, so that `except Exception` does not swallow it."""


_TICK = 0.02  # seconds: what is less is no waiting
_MOST_WAITED = 3  # times the limit, that waiting for a processor is allowed for


class _Waiting:
    """How long this thread has waited for a processor, since it was last asked."""

    def __init__(self, limit: float):
        self._path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._known, self._left = _waited_lately(self._path), _MOST_WAITED * limit

    def more(self, exactly: bool = True) -> float:
        now = waited(self._path) if exactly else _waited_lately(self._path)
        since, self._known = min(now - self._known, self._left), now
        self._left -= since
        return since


class _Budget:
    def __init__(self, seconds: float):
        self.seconds, self._end, self._waiting = seconds, time.monotonic() + seconds, _Waiting(seconds)

    def left(self) -> float:
        self._end += self._waiting.more(exactly=False)
        rest = self._end - time.monotonic()
        return rest if rest > _TICK else 0.0  # as exactly as a time limit knows it


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextlib.contextmanager
def budget(seconds: float) -> Iterator[None]:
    """Calls in the body have so many seconds together: `left()` counts them down, and whoever calls asks it.

    Seconds without a processor don't count, as in `time_limit`.
    """
    token = _budget.set(_Budget(seconds))
    try:
        yield
    finally:
        _budget.reset(token)


def left() -> float:
    """The seconds that remain, 0 where none do, infinity where there is no budget."""
    return _budget.get().left() if _budget.get() else float("inf")


def granted() -> float:
    """The seconds of the budget, infinity where there is none."""
    return _budget.get().seconds if _budget.get() else float("inf")


@contextlib.contextmanager
def time_limit(seconds: float | None):
    """Raise TimeLimit in the body once `seconds` are over, and again every half second while it goes on.

    Seconds in which the body could have run and had no processor don't count, up to three times the limit, where the
    system tells them (Linux's schedstat). On a main thread with POSIX signals this also ends a sleep. Elsewhere
    (Windows, another thread) the exception arrives when the body next runs Python code. None means no limit.
    """
    if seconds is None:
        yield
    elif _has_signals():
        with _by_signal(seconds, signal.ITIMER_REAL, signal.SIGALRM, _Waiting(seconds)):
            yield
    else:
        with _by_thread(seconds, time.monotonic, _Waiting(seconds)):
            yield


@contextlib.contextmanager
def processor_limit(seconds: float):
    """As `time_limit`, in seconds for which this process has kept a processor busy; it stands beside that one."""
    if _has_signals():
        with _by_signal(seconds, signal.ITIMER_PROF, signal.SIGPROF):
            yield
    else:
        with _by_thread(seconds, time.process_time):
            yield


def _has_signals() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def waited(schedstat: str) -> float:
    """Seconds that a thread could have run and did not, by its file in /proc; 0 where the system doesn't say."""
    try:
        with open(schedstat, encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


_readings: dict[tuple[int, str], tuple[float, float]] = {}  # when it was read, and what it said


def _waited_lately(schedstat: str) -> float:
    """As `waited`, but no older than a tick: calls of a tenth of a millisecond need not open a file each."""
    now, key = time.monotonic(), (os.getpid(), schedstat)
    at, seconds = _readings.get(key, (-_TICK, 0.0))
    if now - at >= _TICK:
        seconds = waited(schedstat)
        if len(_readings) > 100:  # of threads and of processes forked from that are no more
            _readings.clear()
        _readings[key] = now, seconds
    return seconds


@contextlib.contextmanager
def _by_signal(seconds: float, timer: int, number: int, waiting: _Waiting | None = None):
    def ring(signum, frame):
        if frame and frame.f_code.co_filename.endswith(_DELICATE):
            signal.setitimer(timer, 0.002, 0.5)
        elif waiting and (more := waiting.more()) > _TICK:
            signal.setitimer(timer, more, 0.5)
        else:
            raise TimeLimit

    before = signal.signal(number, ring)
    signal.setitimer(timer, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)


@contextlib.contextmanager
def _by_thread(seconds: float, clock: Callable[[], float], waiting: _Waiting | None = None):
    target, over, lock = threading.get_ident(), threading.Event(), threading.Lock()
    sent, end = 0, clock() + seconds

    def ring():
        nonlocal sent
        wait = seconds
        while not over.wait(wait):
            with lock:
                frame = sys._current_frames().get(target)
                if (rest := end - clock()) > 0:  # another clock than that of the wall
                    wait = max(rest, _TICK)
                elif frame and frame.f_code.co_filename.endswith(_DELICATE):
                    wait = 0.002
                elif waiting and (more := waiting.more()) > _TICK:
                    wait = more
                elif not over.is_set():
                    wait = 0.5
                    sent += 1
                    _raise_in(target)

    threading.Thread(target=ring, daemon=True).start()
    arrived = 0
    try:
        yield
    except TimeLimit:
        arrived = 1
        raise
    finally:
        with lock:
            over.set()
        if sent > arrived:
            _let_arrive()


def _let_arrive() -> None:
    """Wait until an exception that is on its way has come, so that it does not hit whoever runs next."""
    try:
        for _ in range(100):
            time.sleep(0.001)
    except TimeLimit:
        pass


def _raise_in(thread: int) -> None:
    # Taking an exception back (passing NULL) is not an option: CPython 3.11 then hangs in the next profiled call.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeLimit))
