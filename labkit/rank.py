"""What runs inside one rank: set up, call the function, send home what came of it, and leave nothing behind.

The launcher talks to a rank over one connection. To the rank: the task, then "where" (which line are you at?) and
"release" (go). From the rank: (kind, …) tuples, kind being ready, printed, where, done or raised.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import pickle
import signal
import sys
import sysconfig
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist

from labkit import waiting
from labkit.status import Board

_LIBRARIES = tuple(
    {os.path.dirname(os.path.abspath(__file__)), *(sysconfig.get_path(p) for p in ("stdlib", "purelib", "platlib"))}
)
_MOST_PRINTED = 20_000  # characters a rank
_LISTENERS = ("__torch_function__", "__torch_dispatch__")  # modes that stand between a caller and what it calls


@dataclass(frozen=True)
class Task:
    """All that a rank needs to know. `call` is (function, args), pickled."""

    call: bytes
    backend: str
    timeout: float
    environment: dict[str, str]
    folder: str
    directory: str


class _Post:
    """Messages home, from any thread."""

    def __init__(self, connection):
        self._connection, self._lock = connection, threading.Lock()

    def send(self, *message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._connection.send_bytes(pickle.dumps(message))


def main(connection, rank: int, ranks: int) -> None:
    """Be rank `rank` of `ranks`. Never returns: ends with everything that this rank has started."""
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own, so that nothing of it survives it and Ctrl-C goes to the launcher alone
    post = _Post(connection)
    released = threading.Event()
    try:
        task: Task = pickle.loads(connection.recv_bytes())
        _work(task, post, connection, rank, ranks, released)
    except BaseException as error:
        post.send("raised", *_packed_error(error))
    released.wait()
    _end()


def _end() -> None:
    """End at once, with the rest of the process group: no exit handlers, no waiting for other ranks."""
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _work(task: Task, post: _Post, connection, rank: int, ranks: int, released: threading.Event) -> None:
    _redirect(os.path.join(task.folder, f"rank{rank}.log"))
    os.environ.clear()
    os.environ.update(task.environment)
    os.chdir(task.directory)
    sys.stdout = sys.stderr = out = _Lines(post)
    board = Board(os.path.join(task.folder, "status"), rank)
    main_thread = threading.get_ident()
    listen = threading.Thread(target=_listen, args=(connection, post, board, released, main_thread), daemon=True)
    listen.start()
    torch.set_num_threads(1)
    function, args = pickle.loads(task.call)
    if task.backend != "gloo":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        task.backend,
        store=dist.FileStore(os.path.join(task.folder, "store"), ranks),
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=task.timeout),
    )
    torch.manual_seed(0)
    post.send("ready")
    waiting.watch(board)
    try:
        value = function(*args)
        packed = _packed_value(value)
    finally:
        out.close_line()
    post.send("done", packed)


def _redirect(path: str) -> None:
    """Send what C++ code prints to a file: it is read when the rank dies, and litters no notebook."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _listen(connection, post: _Post, board: Board, released: threading.Event, main_thread: int) -> None:
    """Answer the launcher, and beat. When the launcher is gone, so is this rank."""
    while True:
        try:
            while not connection.poll(0.25):
                board.beat(time.process_time())
            order = connection.recv_bytes()
        except (EOFError, OSError):
            _end()
        if order == b"release":
            released.set()
        else:
            frame = sys._current_frames().get(main_thread)
            post.send("where", own_frames(traceback.walk_stack(frame))[:1])


class _Lines(io.TextIOBase):
    """A stdout that sends whole lines home, up to a limit."""

    def __init__(self, post: _Post):
        self._post, self._rest, self._room = post, "", _MOST_PRINTED

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._room >= 0:
            whole, newline, self._rest = (self._rest + text).rpartition("\n")
            if newline or len(self._rest) > 1000:
                self._send(whole if newline else self._rest)
                self._rest = self._rest if newline else ""
        return len(text)

    def close_line(self) -> None:
        if self._rest:
            self._send(self._rest)
            self._rest = ""

    def _send(self, text: str) -> None:
        cut = len(text) > self._room
        self._post.send("printed", text[: self._room] + ("\n(the rest of the output is cut)" if cut else ""))
        self._room -= len(text)  # below zero once something was cut


def own_frames(frames) -> list[tuple[str, int, str]]:
    """(file, line, function) of the frames that belong neither to labkit nor to a library; all, if there are none."""
    codes = [(frame.f_code, line) for frame, line in frames if frame.f_code.co_name not in _LISTENERS]
    every = [(code.co_filename, line, code.co_name) for code, line in codes]
    return [one for one in every if not one[0].startswith((*_LIBRARIES, "<frozen"))]


def _packed_error(error: BaseException) -> tuple[bytes | None, str, list]:
    """The exception itself where it can be sent, its last line, and the frames of the code that raised it."""
    text = "".join(traceback.format_exception_only(error)).strip()[:2000]
    frames = own_frames(traceback.walk_tb(error.__traceback__))
    try:
        return cloudpickle.dumps(error), text, frames
    except Exception:
        return None, text, frames


def _packed_value(value: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(value)
    except Exception as error:
        raise TypeError(f"the value that the function returned can't be sent back: {error}") from None
    return buffer.getvalue()


class _Pickler(cloudpickle.Pickler):
    """Every tensor becomes a plain one on the CPU: no graph, no subclass, and no more than its own numbers."""

    def reducer_override(self, obj):
        if not isinstance(obj, torch.Tensor):
            return super().reducer_override(obj)
        tensor = (obj.to_local() if hasattr(obj, "to_local") else obj).detach()
        tensor = (tensor if tensor.layout == torch.strided else tensor.to_dense()).cpu().resolve_conj().resolve_neg()
        flat = tensor.reshape(-1).contiguous()
        if flat.numel() < 2:  # it may have any stride, and with some it can't be viewed as bytes: a copy has its own
            flat = flat.clone(memory_format=torch.contiguous_format)
        data = flat.view(torch.uint8).numpy().tobytes()
        return _plain_tensor, (data, tensor.dtype, tuple(tensor.shape))


def _plain_tensor(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)
