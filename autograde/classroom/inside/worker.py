"""What runs inside the sandbox: the learner's cells, and their functions on the inputs that the grader sends.

Torch is imported once. Each notebook runs in a fork of that process, and at each check the notebook forks again: the
copy holds the names as they stand there, and waits until the grader asks it for values. All cells of a notebook have
run, and what they did is told, before the first hidden input arrives.

Nothing here is trusted. The learner's code can do to this process what it likes; what comes back is only values.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import gc
import linecache
import os
import resource
import select
import shutil
import signal
import sys
import types

import torch

from autograde.classroom.inside import ahead, spaces
from autograde.classroom.inside.frames import BadFrame, Channel
from autograde.exercise import Case, Exercise
from autograde.judging.calls import Bounded, Failure, Outcome, run_once, short_traceback
from autograde.judging.limits import TimeLimit, time_limit
from autograde.judging.running import run_all
from labkit.notebook import as_python, compiled

_MOST_TOLD = 1_500


def main() -> None:
    """The worker of a sandbox that is one student's alone: the connection is stdin and stdout."""
    serve(connection(0, 1))


def serve(channel: Channel) -> None:
    """Answer the grader until it closes the connection."""
    settings = channel.receive()
    _confine(settings)
    ahead.import_all(settings["imports"])
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, every page
    channel.send({"ready": True})
    before = _scratch()
    while True:
        order = channel.receive()
        status = _forked(lambda order=order: _Notebook(channel, order).run(), channel)
        _clear_away(settings)
        if settings["alone"] and _scratch() - before:
            os._exit(1)  # what can't be removed must not tell the next notebook of this one's hidden inputs
        channel.send({"ended": _ending(status)})


def connection(*pipes: int) -> Channel:
    """The connection over two pipes (in, out), moved to high numbers; stdin, stdout and stderr lead nowhere then."""
    incoming, outgoing = (fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100) for number in pipes)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    for number in {nowhere, *pipes} - {0, 1, 2}:
        os.close(number)
    return Channel(incoming, outgoing, inputs="in", deadlines=False)


def _confine(settings: dict) -> None:
    """Give up root, then take on the limits: a limit on processes does not bind root."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if settings["alone"]:
        spaces.lose_rights(settings["uid"])
        spaces.filter_calls(bytes.fromhex(settings["filter"]))
    for name, value in settings["limits"].items():
        number = getattr(resource, name, None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))
    os.umask(0o077)
    torch.set_num_threads(1)


def _forked(work, channel: Channel) -> int:
    """Run `work` in a fork; gives the status that waitpid tells. Ends everything when the grader is gone meanwhile."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(70)  # an error in here; the regular ways out end the process themselves
    if hasattr(os, "pidfd_open"):
        waiting, handle = select.poll(), os.pidfd_open(pid)
        waiting.register(handle, select.POLLIN)
        waiting.register(channel.incoming, 0)  # asks for no data, only for the end of the connection
        if channel.incoming in dict(waiting.poll()):
            os._exit(1)
        os.close(handle)
    return os.waitpid(pid, 0)[1]


def _clear_away(settings: dict) -> None:
    """End all that a notebook has started, and remove its files."""
    if settings["alone"] and os.getpid() <= 2:  # only in a process namespace of our own
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        for folder in spaces.SCRATCH:
            with contextlib.suppress(OSError):
                for entry in os.scandir(folder):
                    _remove(entry)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _scratch() -> set[str]:
    """What lies in the scratch folders."""
    return {os.path.join(folder, name) for folder in spaces.SCRATCH for name in os.listdir(folder)}


def _remove(entry: os.DirEntry) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(entry.path)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was ended by the signal {signal.Signals(number).name if number < 32 else number}"
    return f"ended itself with the exit status {os.WEXITSTATUS(status)}"


class _Notebook:
    """One notebook: runs its cells, keeps a copy of the process for each check, then hands over to them in turn."""

    def __init__(self, channel: Channel, order: dict):
        self.channel, self.order = channel, order
        self.space = types.ModuleType("__main__")
        self.waiting: dict[int, tuple[int, int]] = {}
        self.unsolved: list[int] = []

    def run(self) -> None:
        os.setsid()
        sys.modules["__main__"] = self.space
        builtins.display, builtins.get_ipython = (lambda *a, **k: None), (lambda: None)
        told = [self._cell(index, cell) for index, cell in enumerate(self.order["cells"])]
        self.channel.send({"loaded": told, "unsolved": self.unsolved})
        while True:
            order = self.channel.receive()
            if order["do"] == "end":
                os._exit(0)
            pid, start = self.waiting.pop(order["check"])
            os.write(start, b"!")
            status = os.waitpid(pid, 0)[1]
            self.channel.send({"served": True} if status == 0 else {"died": _ending(status)})

    def _cell(self, index: int, cell: dict) -> list[str]:
        """Run one cell and keep a copy for the check that follows it. Gives [label, what happened]."""
        happened = cell["skip"]
        if not happened:
            self.channel.send({"at": index})
            happened = self._executed(cell)
        for number, check in enumerate(self.order["checks"]):
            if check["after"] == index:
                if not check["probe"] and not check["ranks"] and is_stub(getattr(self.space, check["name"], None)):
                    self.unsolved.append(number)  # a copy of the process could say no more
                else:
                    self._keep(number, check)
        return [cell["label"], happened[:_MOST_TOLD]]

    def _executed(self, cell: dict) -> str:
        name = f"<{cell['label']}>"
        out = Bounded()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), time_limit(cell["limit"]):
                code = _compiled(cell["source"], name)
                exec(code, vars(self.space))
        except NotImplementedError:
            return ""
        except TimeLimit:
            return f"did not finish within {cell['limit']:g} s"
        except BaseException as error:
            return short_traceback(error)
        return ""

    def _keep(self, number: int, check: dict) -> None:
        """A fork that waits for its turn; its first byte comes over a pipe of its own."""
        wait, start = os.pipe()
        pid = os.fork()
        if pid:
            os.close(wait)
            self.waiting[number] = (pid, start)
            return
        try:
            os.close(start)
            if os.read(wait, 1):
                _Check(self.channel, self.space, check).answer()
        finally:
            os._exit(70)


def is_stub(function) -> bool:
    """Whether a function does nothing but `raise NotImplementedError`, as it was released."""
    if type(function) is not types.FunctionType or "NotImplementedError" in function.__globals__:
        return False
    code = function.__code__
    return (code.co_code, code.co_names) == (_stub.__code__.co_code, ("NotImplementedError",))


def _stub():
    raise NotImplementedError


def _compiled(source: str, name: str):
    linecache.cache[name] = (len(source), None, as_python(source).splitlines(keepends=True), name)
    return compiled(source, name)


class _Check:
    """Calls one learner's object, as often as the grader asks."""

    def __init__(self, channel: Channel, space: types.ModuleType, check: dict):
        self.channel, self.name = channel, check["name"]
        probe = None
        if check["probe"]:
            room = {"__name__": "__main__"}  # so that it travels to other ranks by value
            exec(compile(check["probe"][1], f"<probe of {self.name}>", "exec"), room)
            probe = room[check["probe"][0]]
        self.target = getattr(space, self.name, None)
        self.exercise = Exercise(
            self.name, 1, tuple, probe=probe, ranks=check["ranks"], forbid=tuple(check["forbid"]),
            mutates=check["mutates"], limit=check["limit"],
        )  # fmt: skip

    def answer(self) -> None:
        while True:
            order = self.channel.receive()
            if order["do"] != "run":
                os._exit(0)
            cases = [Case(tuple(a), k, ranks=ranks, backward=back) for a, k, ranks, back in order["cases"]]
            for outcome in self._outcomes(cases):
                self._tell(outcome)

    def _outcomes(self, cases: list[Case]):
        if self.target is None:
            missing = f"NameError: the notebook defines no `{self.name}`"
            return [Outcome(failure=Failure("raised", missing, "NameError", missing))] * len(cases)
        if self.exercise.ranks:
            return run_all([self.target], self.exercise, cases)[0]
        return (run_once(self.target, self.exercise, one) for one in cases)

    def _tell(self, outcome: Outcome) -> None:
        try:
            self.channel.send(message(outcome))
        except Exception as error:  # numbers too long for JSON, tensors of a kind that can't be stored
            told = f"The result is {error}." if isinstance(error, BadFrame) else "The result can't be handed over."
            self.channel.send(message(Outcome(failure=Failure("too large", told), printed=outcome.printed)))


def message(outcome: Outcome) -> dict:
    """What is told of an outcome."""
    failure = outcome.failure
    traffic = [[[m.op, list(m.shape), m.dtype, m.bytes, m.peer] for m in rank] for rank in _traffic(outcome)]
    return {
        "value": outcome.value,
        "failure": failure and [failure.kind, failure.message, failure.type, failure.trace],
        "changed": list(outcome.changed),
        "shared": list(outcome.shared),
        "printed": outcome.printed,
        "traffic": traffic,
    }


def _traffic(outcome: Outcome) -> list:
    return getattr(outcome.value, "traffic", [])


if __name__ == "__main__":
    main()
