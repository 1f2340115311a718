"""A soft time limit for code that runs in this process, and a budget for all of a check's calls together."""

from __future__ import annotations

import contextlib
import ctypes
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
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


_budget: ContextVar[tuple[float, float] | None] = ContextVar("budget", default=None)  # (its end, its seconds)


@contextlib.contextmanager
def budget(seconds: float) -> Iterator[None]:
    """Calls in the body have so many seconds together: `left()` counts them down, and whoever calls asks it."""
    token = _budget.set((time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _budget.reset(token)


def left() -> float:
    """The seconds that remain, 0 where none do, infinity where there is no budget."""
    return max(_budget.get()[0] - time.monotonic(), 0.0) if _budget.get() else float("inf")


def granted() -> float:
    """The seconds of the budget, infinity where there is none."""
    return _budget.get()[1] if _budget.get() else float("inf")


@contextlib.contextmanager
def time_limit(seconds: float | None):
    """Raise TimeLimit in the body once `seconds` are over, and again every half second while it goes on.

    On a main thread with POSIX signals this also ends a sleep. Elsewhere (Windows, another thread) the exception
    arrives when the body next runs Python code. None means no limit.
    """
    if seconds is None:
        yield
    elif hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        with _by_signal(seconds):
            yield
    else:
        with _by_thread(seconds):
            yield


@contextlib.contextmanager
def _by_signal(seconds: float):
    def ring(signum, frame):
        if frame and frame.f_code.co_filename.endswith(_DELICATE):
            signal.setitimer(signal.ITIMER_REAL, 0.002, 0.5)
        else:
            raise TimeLimit

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _by_thread(seconds: float):
    target, over, lock = threading.get_ident(), threading.Event(), threading.Lock()
    sent = 0

    def ring():
        nonlocal sent
        wait = seconds
        while not over.wait(wait):
            wait = 0.5
            with lock:
                frame = sys._current_frames().get(target)
                if frame and frame.f_code.co_filename.endswith(_DELICATE):
                    wait = 0.002
                elif not over.is_set():
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
