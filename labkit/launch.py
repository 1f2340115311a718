"""Run a function on several ranks from a notebook cell or a script, and say clearly what went wrong."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import spawn
from typing import Any

import cloudpickle

from labkit import status
from labkit.failure import RankError, died, explain, named, raised
from labkit.rank import Task, main

__all__ = ["RankError", "launch"]

# The first optimizer or DistributedDataParallel imports torch._dynamo: 2 s in every rank of every launch, if not here.
_PRELOAD = ["torch", "torch.distributed", "torch._dynamo", "cloudpickle", "labkit.rank"]
_START_LIMIT = 180.0  # seconds that the ranks may take to come up, on a cold and slow disk
_POLL = 0.1
_STILL, _BEATS = 10, 3  # polls without any change, and beats of every rank, that make a deadlock certain
_SLOWEST = 5e6  # bytes that are moved in a second at the very least
_GRACE = 0.15  # seconds in which the ranks that fail with the first one are heard
_starting = threading.Lock()


def launch(fn: Callable[..., Any], *args: Any, ranks: int = 4, limit: float = 60.0) -> list[Any]:
    """Run `fn(*args)` on `ranks` processes with torch.distributed set up; give the results in rank order.

    `fn` may be any function: one from a notebook cell, a closure, a lambda. It, its arguments and what it returns
    travel by cloudpickle; tensors come back as plain CPU tensors. In `fn` the process group stands: get_rank() and
    get_world_size() of torch.distributed work. The backend is gloo; with as many GPUs as ranks there is NCCL for CUDA
    tensors as well, and each rank has its own device. Each rank uses one thread and starts from the random seed 0.
    What the ranks print appears here, line by line.

    Raises RankError, and ends all ranks, when one of them raises or dies, when all wait for one another, and when they
    need more than `limit` seconds (starting up not counted). The message names the rank and what the others wait for.
    No network is needed, and neither processes nor files are left behind.
    """
    if ranks < 1 or not limit > 0:
        raise ValueError("launch() needs ranks >= 1 and limit > 0.")
    try:
        call = cloudpickle.dumps((fn, args))
    except Exception as error:
        raise RankError(f"The function or an argument can't be sent to the ranks: {error}", "raised") from None
    with tempfile.TemporaryDirectory(prefix=f"labkit-{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        board_file = os.path.join(folder, "status")
        status.create(board_file, ranks)
        task = Task(call, _backend(ranks), limit + 600.0, _environment(), folder, os.getcwd())
        with contextlib.closing(status.Board(board_file)) as board, _started(ranks, pickle.dumps(task)) as members:
            return _Launch(members, board, limit, folder).run()


def _backend(ranks: int) -> str:
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and torch.cuda.device_count() >= ranks else "gloo"


def _environment() -> dict[str, str]:
    # gloo would look up this machine's own name, which may fail or take long; the ranks only ever talk locally.
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    return ({"GLOO_SOCKET_IFNAME": loopback} if loopback else {}) | dict(os.environ)


class _Member:
    """One rank, as the launcher sees it. `state` is starting, running, finished, raised or died."""

    def __init__(self, rank: int, process, connection):
        self.rank, self.process, self.connection = rank, process, connection
        self.state, self.value, self.failure, self.frames = "starting", None, None, []

    @property
    def is_busy(self) -> bool:
        return self.state in ("starting", "running")

    def end(self) -> None:
        """Kill the rank and all that it has started."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.is_alive():
            self.process.kill()


@contextlib.contextmanager
def _started(ranks: int, task: bytes) -> Iterator[list[_Member]]:
    members: list[_Member] = []
    try:
        context = _context()
        for rank in range(ranks):
            mine, theirs = context.Pipe()
            process = context.Process(target=main, args=(theirs, rank, ranks), name=f"rank {rank}")
            with theirs, _without_main():
                process.start()
            members.append(_Member(rank, process, mine))
        for member in members:
            with contextlib.suppress(OSError):  # it is dead already, and the launcher will see that
                member.connection.send_bytes(task)
        yield members
    finally:
        for member in members:
            member.end()
        for member in members:
            member.process.join()
            member.process.close()
            member.connection.close()


def _context():
    """A server that has torch loaded and forks where that is safe; a fresh Python a rank elsewhere."""
    if sys.platform in ("win32", "darwin"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not run the caller's script or notebook again, guarded by __main__ or not."""
    original, thread = spawn.get_preparation_data, threading.get_ident()

    def prepare(name):
        data = original(name)
        if threading.get_ident() == thread:
            data = {key: value for key, value in data.items() if not key.startswith("init_main")}
        return data

    current = multiprocessing.current_process()
    with _starting:
        daemon = current._config.pop("daemon", None)  # a daemon may have no children; these end before launch returns
        spawn.get_preparation_data = prepare
        try:
            yield
        finally:
            spawn.get_preparation_data = original
            if daemon is not None:
                current._config["daemon"] = daemon


class _Launch:
    """Listens to the ranks until all have finished, or one fails, or nothing moves any more."""

    def __init__(self, members: list[_Member], board: status.Board, limit: float, folder: str):
        self.members, self.board, self.limit, self.folder = members, board, limit, folder
        self.deadline = time.monotonic() + _START_LIMIT
        self.seen: tuple | None = None
        self.still, self.same, self.cpu, self.beats = 0, 0, 0.0, []

    def run(self) -> list[Any]:
        while busy := [member for member in self.members if member.is_busy]:
            self.listen(busy, _POLL)
            if any(member.failure for member in self.members):
                self.raise_failure()
            self.check_clock()
        for member in self.members:
            with contextlib.suppress(OSError):
                member.connection.send_bytes(b"release")
        for member in self.members:
            member.process.join(2.0)
        return [pickle.loads(member.value) for member in self.members]

    def listen(self, members: list[_Member], timeout: float) -> None:
        """Handle what has arrived; wait up to `timeout` seconds for something to arrive."""
        sources = {member.connection: member for member in members}
        for connection in multiprocessing.connection.wait(list(sources), timeout):
            member = sources[connection]
            try:
                kind, *content = pickle.loads(connection.recv_bytes())
            except (EOFError, OSError):
                member.state, member.failure = "died", died(member.process, self.folder, member.rank)
            else:
                self.handle(member, kind, content)

    def handle(self, member: _Member, kind: str, content: list) -> None:
        if kind == "printed":
            for line in content[0].split("\n"):
                print(f"[rank {member.rank}] {line}")
        elif kind == "where":
            member.frames = content[0]
        elif kind == "raised":
            member.state, member.failure = "raised", raised(*content)
        elif kind == "done":
            member.state, member.value = "finished", content[0]
        elif kind == "ready":
            member.state = "running"
            if not any(one.state == "starting" for one in self.members):
                self.deadline = time.monotonic() + self.limit

    def raise_failure(self) -> None:
        """Say what the first failure was. A rank whose partner died fails too, so hear the others first."""
        self.listen_for(_GRACE, [member for member in self.members if member.is_busy])
        failed = [member for member in self.members if member.failure]
        root = min(failed, key=lambda member: member.failure.rank_of_cause)
        same = [member.rank for member in failed if member.failure.headline == root.failure.headline]
        others = [member for member in self.members if member not in failed]
        message = f"{named(same)} {root.failure.headline}"
        if meanwhile := [self.describe(member) for member in others if self.is_telling(member)]:
            message += "\nMeanwhile:\n" + "\n".join(meanwhile)
        raise RankError(message, root.state, root.rank, root.failure.error)

    def listen_for(self, seconds: float, members: list[_Member]) -> None:
        end = time.monotonic() + seconds
        while members and (left := end - time.monotonic()) > 0:
            self.listen(members, left)
            members = [member for member in members if member.is_busy]

    def is_telling(self, member: _Member) -> bool:
        return member.state == "finished" or self.board.read(member.rank).waiting

    def check_clock(self) -> None:
        """Raise when nothing moves any more, or the time is up."""
        busy = [member for member in self.members if member.is_busy]
        doing = [self.board.read(member.rank) for member in busy]
        seen = tuple((member.rank, member.state, now.changes) for member, now in zip(busy, doing, strict=True))
        cpu = sum(now.cpu for now in doing)
        self.still, self.same = self.still + 1, self.same + 1 if seen == self.seen else 0
        # Ranks that move a lot of data wait without a change, too, but they work while they do. Work alone says little:
        # gloo's own thread spins for ever once a send was begun and nobody has kept what isend gave.
        moving = sum(self.board.read(member.rank).moved for member in self.members) > self.same * _POLL * _SLOWEST
        if not self.same or moving and cpu - self.cpu > 0.05 * self.still * _POLL + 0.02:
            self.seen, self.still, self.cpu, self.beats = seen, 0, cpu, [now.beats for now in doing]
        stuck = bool(busy) and all(now.waiting and now.certain for now in doing)
        # On a machine that is busy with other things nothing moves either, but then the ranks hardly beat.
        alive = all(now.beats >= before + _BEATS for now, before in zip(doing, self.beats, strict=True))
        if stuck and alive and self.still >= _STILL:
            self.stop("deadlock", "The ranks wait for one another, and none can go on:")
        if busy and time.monotonic() > self.deadline:
            if any(member.state == "starting" for member in busy):
                raise RankError(f"The ranks did not start within {_START_LIMIT:g} s.", "too slow")
            self.stop("deadlock" if stuck else "too slow", f"The ranks have not finished within {self.limit:g} s:")

    def stop(self, kind: str, headline: str) -> None:
        """Raise with what every rank is doing, and where."""
        busy = [member for member in self.members if member.is_busy]
        for member in busy:
            with contextlib.suppress(OSError):
                member.connection.send_bytes(b"where")
        end = time.monotonic() + 0.5
        while not all(member.frames for member in busy) and (left := end - time.monotonic()) > 0:
            self.listen(busy, left)
        raise RankError("\n".join([headline, *map(self.describe, self.members)]), kind)

    def describe(self, member: _Member) -> str:
        doing = self.board.read(member.rank)
        if member.state == "finished":
            return f"  rank {member.rank} has finished"
        what = f"waits in {doing.text}" if doing.waiting else "is running"
        return f"  rank {member.rank} {what}{explain(member.frames)}"
