"""Students take turns in one sandbox: none finds, leaves or harms anything, and a sandbox that ends is made anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from class_of_one import MASK, QUICK

from autograde.classroom.sandbox import starting
from autograde.classroom.sandbox.isolation import python_folders
from autograde.classroom.sandbox.session import Session
from autograde.classroom.submission import Step
from autograde.exercises import find
from autograde.judging.grading import grade

pytestmark = pytest.mark.slow
PATIENT = replace(QUICK, cell=60.0, grace=10.0)  # nothing here is about time, and the machine may be busy

LEAVES = """
import os, socket, subprocess, sys
from multiprocessing import shared_memory
for folder in ("/tmp", "/dev/shm"):
    open(f"{folder}/left-behind", "w").write("x")
shared_memory.SharedMemory("left-behind-too", create=True, size=10)
server = socket.socket(socket.AF_UNIX)
server.bind("\\0left-behind")
server.listen()
if not os.fork():
    os.setsid()
    while True:
        pass
"""
CLOSES = """
import os
os.makedirs("/tmp/closed")
open("/tmp/closed/told", "w").write("x")
os.chmod("/tmp/closed", 0)
"""
EATS = """
import os
for _ in range(6):
    if not os.fork():
        break
x = []
while True:
    x.append(b"1" * 2**24)
"""
LOOKS = """
import os, socket
pid = os.fork()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
found = {"files": os.listdir("/tmp") + os.listdir("/dev/shm"), "numbers": []}
found["numbers"] = [int(name) for name in os.listdir("/proc") if name.isdigit()]
found["own"], found["sockets"] = [os.getpid(), os.getppid()], []
for number in range(256):
    try:
        socket.socket(fileno=os.dup(number))
        found["sockets"].append(number)
    except OSError:
        pass
try:
    socket.socket(socket.AF_UNIX).connect("\\0left-behind")
    found["reached"] = True
except OSError:
    found["reached"] = False
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
found["rights"] = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
found["filter"] = [int(status[name]) for name in ("NoNewPrivs", "Seccomp")]
raise ValueError(repr(found))
"""


@pytest.fixture(scope="module", autouse=True)
def sandboxed(sandbox):
    if sandbox != "bubblewrap":
        pytest.skip("needs bubblewrap")
    yield
    starting._end_shared()


@pytest.fixture
def session():
    made = Session("bubblewrap", limits=PATIENT)
    yield made
    made.close()


CHECKS = """
import sys
import torch
from autograde.classroom.inside import ahead, frames, worker
from autograde.exercise import Case, Exercise
from autograde.judging.calls import run_once

ahead.import_all("import torch")
before = set(sys.modules)
exercise = Exercise("f", 1, tuple, forbid=("torch.softmax",))
found = run_once(lambda x: 2 * x, exercise, Case((torch.ones(3),), {}, backward=((0,), (0,))))
said = frames.unpack(*frames.parts_of(frames.pack(worker.message(found))))
print(said["failure"], len(set(sys.modules) - before), sorted(set(sys.modules) - before)[:9])
"""


LARGE_PAGES = """
import gc
from autograde.classroom.inside import ahead


def large():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


held = [bytes([n]) * 5_000 for n in range(256)] + [bytearray(range(256)) * 4 for _ in range(40_000)]
before = large()
ahead.in_large_pages()
same = all(held[n] == bytes([n]) * 5_000 for n in range(256)) and all(x == held[256] for x in held[256:])
print(same, large() >= before, large())
"""


def test_memory_in_large_pages_is_what_it_was():
    found = subprocess.run([sys.executable, "-c", LARGE_PAGES], capture_output=True, text=True)
    same, more, kilobytes = found.stdout.split()
    assert (same, more) == ("True", "True"), found.stderr
    known = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 1) and os.uname().machine == "x86_64"
    assert int(kilobytes) > 10_000 or not known


def run(session: Session, source: str) -> str:
    """What the first cell of a notebook with that code tells."""
    softmax = find("scaled_dot_product_attention")
    steps = [Step("setup", "setup", "import torch"), Step("exercise", softmax.name, source)]
    told = session.begin([*steps, Step("check", softmax.name, "")], {softmax.name: softmax})
    return told[0][1] if told else ""


@pytest.mark.parametrize(("leaves", "starts"), [(LEAVES, 1), (CLOSES, 2)], ids=["removed", "not removable"])
def test_a_notebook_finds_no_file_of_the_one_before(session, leaves, starts):
    assert run(session, leaves) == ""
    found = eval(run(session, LOOKS).rpartition("ValueError: ")[2])
    assert not {"left-behind", "left-behind-too", "closed"} & set(found["files"])
    assert session.starts == starts, "where something can't be removed, a new sandbox has nothing of it"


def zygote() -> starting.Zygote:
    (known,) = starting._shared.values()
    return known


def test_a_student_finds_nothing_of_another_and_has_no_rights(session):
    assert run(session, LEAVES) == ""
    first = zygote()
    session.close()
    found = eval(run(session, LOOKS).rpartition("ValueError: ")[2])
    assert zygote() is first and type(session.sandbox._started) is starting.Turn
    lent = {Path(folder).parts[2] for folder in python_folders() if folder.startswith("/tmp/")}
    assert set(found["files"]) == lent and not found["reached"] and found["sockets"] == []
    assert set(found["numbers"]) == {1, *found["own"]}, "only its own processes"
    assert found["rights"] == [0] * 5 and found["filter"] == [1, 2]


STUBS = {
    "as released": ('"""What is asked for."""', True),
    "half written": ("n = q.shape[-1]", False),
    "another error of that name": ("global NotImplementedError; NotImplementedError = KeyError", False),
}


@pytest.mark.parametrize("way", STUBS)
def test_what_is_as_released_is_known_without_a_call(session, way):
    attention = find("scaled_dot_product_attention")
    body, known = STUBS[way]
    source = f"def {attention.name}(q, k, v, mask=None):\n    {body}\n    raise NotImplementedError"
    cells = [Step("setup", "setup", "import torch"), Step("exercise", attention.name, source)]
    assert session.begin([*cells, Step("check", attention.name, "")], {attention.name: attention}) == []
    assert bool(session.failed) is known
    space: dict = {}
    exec(source, space)
    here, there = grade(attention, space[attention.name], 1), grade(attention, print, 1, runner=session.runner)
    assert (there.status, there.earned) == (here.status, here.earned)
    assert (there.status == "not implemented") is (way != "another error of that name")


def test_one_that_starts_alone_has_no_rights_either(session, monkeypatch):
    monkeypatch.setattr(starting, "_refused", True)
    found = eval(run(session, LOOKS).rpartition("ValueError: ")[2])
    assert type(session.sandbox._started) is starting.Alone
    assert found["rights"] == [0] * 5 and found["filter"] == [1, 2]


def test_a_turn_that_eats_memory_or_ends_itself_ends_alone(session):
    assert "memory" in run(session, EATS)
    first = zygote()
    run(session, "import os\nos.kill(-1, 9)")
    run(session, "import os\nos.kill(1, 9)\nos._exit(3)")
    assert zygote() is first and first.usable
    assert run(session, "x = 1") == ""


def test_no_process_of_a_turn_is_left(session):
    run(session, LEAVES)
    below = psutil.Process(zygote().pid).children(recursive=True)
    session.close()
    gone, alive = psutil.wait_procs(below, timeout=5)
    assert len(gone) >= 3 and len(alive) <= 2, "bubblewrap's own and the zygote"


def test_a_zygote_that_is_killed_is_made_anew(session):
    assert run(session, "x = 1") == ""
    old = zygote()
    os.kill(old.pid, signal.SIGKILL)
    assert run(session, "x = 2") == ""
    assert zygote() is not old


@pytest.mark.parametrize("where", ["leave", "furnish"])
def test_where_namespaces_are_forbidden_each_starts_alone(session, monkeypatch, where, tmp_path):
    (tmp_path / "spaces.py").write_text(
        f"from autograde.classroom.inside._spaces import *\ndef {where}(*args):\n    raise OSError(1, 'forbidden')\n"
    )
    inside = starting.COURSE + "/autograde/classroom/inside/"
    command = starting.bubblewrap_command

    def changed(*args, **options):
        made = command(*args, **options)
        at = made.index(inside + "spaces.py")
        made[at + 1 : at + 1] = ["--ro-bind", made[at - 1], inside + "_spaces.py"]
        made[at - 1] = str(tmp_path / "spaces.py")
        return made

    starting._end_shared()
    monkeypatch.setattr(starting, "bubblewrap_command", changed)
    monkeypatch.setattr(starting, "_refused", False)
    assert run(session, "x = 1") == ""
    assert type(session.sandbox._started) is starting.Alone and not starting._shared


def test_a_solution_is_graded_in_a_turn(session):
    exercise = find("causal_mask")

    steps = [Step("setup", "setup", "import torch"), Step("exercise", exercise.name, MASK)]
    session.begin([*steps, Step("check", exercise.name, "")], {exercise.name: exercise})
    assert grade(exercise, None, 7, runner=session.runner).earned == exercise.points
    assert type(session.sandbox._started) is starting.Turn


def test_what_libraries_import_late_is_imported_before_the_checks_part():
    """Each check is a process of its own, and would import it anew."""
    ran = subprocess.run([sys.executable, "-c", CHECKS], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    failure, count = ran.stdout.split()[:2]
    assert failure == "None" and int(count) < 20, ran.stdout
