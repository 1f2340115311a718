"""What starts once for many students: it imports what all of them need, and each student's worker is a fork of it.

The fork moves into namespaces of its own before it reads anything of the student. This process never runs a learner's
code, has no connection that a learner's code could use, and ends a student's processes all at once.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket

import torch

from autograde.classroom.inside import ahead, spaces
from autograde.classroom.inside.frames import pack, parts_of, unpack
from autograde.classroom.inside.worker import connection, message, serve
from autograde.exercise import Case, Exercise
from autograde.judging.calls import run_once

MOST = 2**16  # bytes of one message


def main() -> None:
    """Answer the grader over the socket on stdin until it closes that."""
    control = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    settings = json.loads(control.recv(MOST))
    torch.set_num_threads(1)
    ahead.import_all(settings["imports"])
    _call_once()
    gc.collect()
    gc.freeze()
    ahead.in_large_pages()
    control.send(b'{"ready": true}')
    student = None
    while True:
        order, handles, _, _ = socket.recv_fds(control, MOST, 2)
        if student:
            student.end()
        if not order:
            return
        student = _Student(control, settings, handles) if handles else None
        answer = {"failed": student.failed} if student else {"ended": True}
        control.send(json.dumps(answer).encode())


def _call_once() -> None:
    """A call, its gradient and a message, as in a check. What is only set up then is there in each of the forks."""
    exercise = Exercise("nothing", 1, tuple, forbid=("torch.softmax",))
    for backward in (None, ((0,), (0,))):
        one = Case((torch.ones(2, 2),), backward=backward)
        sent = pack({"cases": [[list(one.args), one.kwargs, None, backward]]}, strided=True)
        unpack(*parts_of(sent), strided=True)
        pack(message(run_once(lambda x: (x @ x).exp(), exercise, one)))


class _Student:
    """The processes of one student: a fork, and in namespaces of their own its child, the worker."""

    def __init__(self, control: socket.socket, settings: dict, handles: list[int]):
        told, tell = os.pipe()
        self._fork = os.fork()
        if not self._fork:
            control.close()
            os.close(told)
            _become_worker(settings, handles, tell)
        for handle in (tell, *handles):
            os.close(handle)
        said = _read_all(told)
        os.close(told)
        self._worker = None
        with contextlib.suppress(ValueError, OSError):
            self._worker = os.pidfd_open(int(said.partition("\n")[0]))
        self.failed = said.partition("\n")[2] if self._worker else said or "it ended"

    def end(self) -> None:
        """End all of them: the first process of a namespace takes all others with it."""
        if self._worker is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._worker, signal.SIGKILL)
            select.select([self._worker], [], [], 10)
            os.close(self._worker)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._fork, 0)


def _read_all(handle: int) -> str:
    parts = []
    while part := os.read(handle, 4096):
        parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


def _become_worker(settings: dict, handles: list[int], tell: int) -> None:
    """In the fork: tells the worker's number and what went wrong, if anything did, and never returns."""
    try:
        spaces.leave()
        worker = os.fork()
        if worker:
            os.write(tell, f"{worker}\n".encode())
            for handle in (tell, *handles):
                os.close(handle)
            os.waitpid(worker, 0)
            os._exit(0)
        spaces.furnish(settings["kept"], settings["size"])
        os.close(tell)
        serve(connection(*handles))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(tell, str(error).encode())
    finally:
        os._exit(70)
