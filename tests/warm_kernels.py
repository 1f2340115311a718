"""Kernels for tests, as forks of one process: torch and transformers are imported once, not once a kernel.

Jupyter's kernel "python3" becomes a small process (`attend`) that looks to Jupyter like the kernel, and has one forked
by the test session's only server (`serve`). The server imports nothing before it is first asked, computes nothing and
starts no thread. Where it can't be reached, or AUTOGRADE_COLD is set, the small process becomes an ordinary kernel.

Imports ahead hide that a notebook forgets a submodule's import: submodules.py looks for that.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

COLD = "AUTOGRADE_COLD"
MOST = 2**18  # bytes of a request
# What modules may read when they are imported: a kernel that has it otherwise than the server is an ordinary one.
READ_AT_IMPORT = ("PYTHON", "MPL", "HF_", "TRANSFORMERS_", "TORCH")
# Nothing of the course's own: each kernel imports that itself, and sees what it does at its import.
IMPORTS = """
ipykernel.kernelapp ipykernel.zmqshell ipykernel.debugger debugpy.server.api tornado.platform.asyncio stack_data psutil
IPython.core.completerlib IPython.core.magics IPython.core.debugger IPython.extensions.storemagic
pygments.formatters.terminal256 sqlite3 PIL.JpegImagePlugin matplotlib.pyplot matplotlib.backends.backend_agg
torch torch._dynamo sklearn.linear_model tabulate transformers.models.llama.modeling_llama
transformers.models.auto.modeling_auto transformers.models.auto.tokenization_auto transformers.generation.utils
cloudpickle safetensors.torch
""".split()  # noqa: SIM905


@contextlib.contextmanager
def started(imports: Iterable[str] = IMPORTS) -> Iterator[str | None]:
    """A folder for JUPYTER_PATH, for the kernels of one test session; None where a fork isn't safe."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        spec, place = Path(folder, "kernels/python3"), f"{folder}/door"
        spec.mkdir(parents=True)
        argv = [sys.executable, "-IS", __file__, "attend", place, "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(place)
            door.listen(64)
            command = [sys.executable, __file__, "serve", str(door.fileno()), *imports]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
            options = {"pass_fds": [door.fileno()], "start_new_session": True}
            server = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **options
            )
        try:
            yield folder
        finally:
            server.communicate()


def attend(door: str, *options: str) -> None:
    """Be the kernel for Jupyter: hand signals on, and end as the kernel ends. If this process is killed, so is it."""
    ordinary = [sys.executable, "-m", "ipykernel_launcher", *options]
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"options": options, "cwd": os.getcwd(), "environment": dict(os.environ)}
    try:
        if os.environ.get(COLD, "0") not in ("", "0"):
            raise ConnectionRefusedError
        line.connect(door)
        socket.send_fds(line, [json.dumps(request).encode()], [0, 1, 2])
        forked = line.recv(1)
    except OSError:
        forked = b""
    if not forked:
        os.execv(ordinary[0], ordinary)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: line.send(bytes([number])))
    status = int(line.recv(16) or -signal.SIGKILL)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


class _Kernel:
    """A fork, as the server sees it: its number, a handle that tells its end, and the line to its `attend`."""

    def __init__(self, number: int, line: socket.socket):
        self.number, self.line, self.handle = number, line, os.pidfd_open(number)

    def signal(self, number: int) -> None:
        try:
            os.killpg(self.number, number)
        except ProcessLookupError:  # it has no group of its own yet
            os.kill(self.number, number)

    def hear(self) -> bytes:
        """The number of a signal that Jupyter sends, or nothing when `attend` has ended."""
        try:
            return self.line.recv(1)
        except ConnectionResetError:  # it has left something unread
            return b""

    def end(self) -> None:
        """Wait for it, and tell how it ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        with contextlib.suppress(OSError):
            self.line.send(str(code).encode())
        self.leave()

    def leave(self) -> None:
        self.line.close()
        os.close(self.handle)


def serve(door: socket.socket, imports: Iterable[str]) -> list[str] | None:
    """Fork a kernel for everybody who asks; all end when stdin is closed. In a fork, gives the kernel's options."""
    kernels: list[_Kernel] = []
    ours = None
    while True:
        ready = select.select([0, door, *(k.line for k in kernels), *(k.handle for k in kernels)], [], [])[0]
        for kernel in list(kernels):
            order = kernel.hear() if kernel.line in ready else None
            if order == b"" or 0 in ready:
                kernel.signal(signal.SIGKILL)
            elif order:
                kernel.signal(order[0])
            if order == b"" or 0 in ready or kernel.handle in ready:
                kernel.end()
                kernels.remove(kernel)
        if 0 in ready:
            return None
        if door in ready:
            line, _ = door.accept()
            told, handles, _, _ = socket.recv_fds(line, MOST, 3)
            if ours is None:
                ours = _read_at_import(os.environ)
                _import_ahead(imports)
            request = json.loads(told or b"{}")
            if not request or _read_at_import(request["environment"]) != ours:
                line.close()
            elif number := _fork():
                kernels.append(_Kernel(number, line))
            else:
                for kernel in kernels:
                    kernel.leave()
                door.close()
                _become(request, handles)
                line.send(b"!")
                line.close()
                return request["options"]
            for handle in handles:
                os.close(handle)


def _read_at_import(environment) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(READ_AT_IMPORT)}


def _import_ahead(names: Iterable[str]) -> None:
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as ipykernel, before matplotlib
    os.environ["JPY_PARENT_PID"] = "1"  # Jupyter is not the forks' parent: they needn't look whether it is there
    for name in names:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _fork() -> int:
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads can't be forked"
    return os.fork()


def _become(request: dict, handles: list[int]) -> None:
    """Be like a process that Jupyter has started: its session, streams, folder and environment, and its own chance."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: this ends with the server
    for stream, handle in enumerate(handles):
        os.dup2(handle, stream)
        os.close(handle)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _end(codes: list[int]) -> None:
    """End with the last of `codes`. The heap stays as it is: to take it down, a fork would have to copy it first."""
    sys.__stdout__.flush()
    sys.__stderr__.flush()
    os._exit(codes[-1])


def main(role: str, *given: str) -> None:
    del sys.path[0]  # this folder
    if role == "attend":
        attend(*given)
    codes = [1]
    atexit.register(_end, codes)  # before all imports, so that it is the last exit handler to run
    options = serve(socket.socket(fileno=int(given[0])), given[1:])
    if options is not None:
        import ipykernel_launcher
        from ipykernel import kernelapp

        sys.argv = [ipykernel_launcher.__file__, *options]
        kernelapp.launch_new_instance()
    codes.append(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
