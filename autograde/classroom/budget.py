"""What judging one exercise may cost outside the sandbox, whatever came out of it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

from autograde.judging.limits import processor_limit

SECONDS = 120.0  # of a processor, for laws, comparisons and diagnosis
MEGABYTES = 4_000  # more than the process holds before
_DEADLY = 3  # times as many seconds end the process: something in it never came back to Python


@contextlib.contextmanager
def budget(seconds: float = SECONDS, megabytes: int = MEGABYTES) -> Iterator[None]:
    """Raises TimeLimit in the body after so many seconds of work; memory beyond the megabytes can't be had in there.

    Processes that the body starts begin with the same limits. The grader's pool takes a process that ended for a loss.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime
    limits = {
        resource.RLIMIT_CPU: int(spent + _DEADLY * seconds) + 1,
        resource.RLIMIT_DATA: _data() + megabytes * 2**20,
    }
    before = {what: resource.getrlimit(what) for what in limits}
    for what, most in limits.items():
        soft, hard = before[what]
        open_end = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(what, (min([most, *open_end]), hard))
    try:
        with processor_limit(seconds):
            yield
    finally:
        for what, known in before.items():
            resource.setrlimit(what, known)


def _data() -> int:
    """Bytes that this process has reserved, as RLIMIT_DATA counts them."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmData:"))
