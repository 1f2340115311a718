"""The control group around a sandbox, on folders that look like Linux's; a real one only where the system has it."""

from __future__ import annotations

import os
import subprocess

import pytest

from autograde.classroom.sandbox import cgroups
from autograde.classroom.sandbox.isolation import Limits

LIMITS = Limits(memory=700, processes=50)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A user's groups as systemd makes them: the session's own, and above it one that bounds its members."""
    own = tmp_path / "cgroup/user.slice/app.slice/shell.scope"
    own.mkdir(parents=True)
    (tmp_path / "own").write_text("1:cpu:/\n0::/user.slice/app.slice/shell.scope\n")
    for folder, control in ((own, ""), (own.parent, "memory pids\n"), (own.parent.parent, "cpu memory pids\n")):
        (folder / "cgroup.subtree_control").write_text(control)
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "_OWN", tmp_path / "own")
    monkeypatch.setattr(cgroups, "_PATIENCE", 0.05)
    cgroups._parent.cache_clear()
    yield own.parent
    cgroups._parent.cache_clear()


def test_the_nearest_group_that_bounds_memory_and_processes_is_taken(tree):
    assert cgroups._candidates() == [tree, tree.parent]
    assert cgroups._parent() == tree


def test_a_group_has_the_sandboxs_limits(tree):
    made = cgroups.group(LIMITS)
    assert made.folder.parent == tree
    assert (made.folder / "memory.max").read_text() == str(700 * 2**20)
    assert (made.folder / "pids.max").read_text() == "66"
    assert not (made.folder / "memory.swap.max").exists()


def test_a_command_enters_before_it_begins(tree):
    made = cgroups.group(LIMITS)
    ran = subprocess.run(made.entered(["/bin/sh", "-c", 'echo $$ "$0"', "a b"]), capture_output=True, text=True)
    pid, said = ran.stdout.split(maxsplit=1)
    assert (made.folder / "cgroup.procs").read_text().split() == [pid] and said == "a b\n"


def test_a_command_that_can_t_enter_does_not_run(tree):
    made = cgroups.group(LIMITS)
    (made.folder / "cgroup.procs").mkdir()
    assert subprocess.run(made.entered(["/bin/echo", "ran"]), capture_output=True).stdout == b""


@pytest.mark.parametrize("missing", ["no version 2", "nothing passed on", "no right to make one"])
def test_where_the_system_has_none_there_is_none(tree, monkeypatch, missing):
    if missing == "no version 2":
        cgroups._OWN.write_text("1:memory:/somewhere\n")
    elif missing == "nothing passed on":
        for folder in (tree, tree.parent):
            (folder / "cgroup.subtree_control").write_text("cpu\n")
    else:
        monkeypatch.setattr(cgroups.pathlib.Path, "mkdir", refuse)
    assert cgroups.group(LIMITS) is None


def refuse(self, *args, **kwargs):
    raise PermissionError(13, "Permission denied", str(self))


def test_groups_of_graders_that_are_gone_are_removed_and_no_others(tree):
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    (tree / f"autograde-{gone.pid}-0").mkdir()
    (tree / f"autograde-{os.getppid()}-0").mkdir()
    (tree / "autograde-x-y").mkdir()
    cgroups._remove_left_over(tree)
    assert {path.name for path in tree.glob("autograde-*")} == {f"autograde-{os.getppid()}-0", "autograde-x-y"}


def test_closing_removes_a_group_and_gives_up_where_somebody_is_in_it(tree):
    empty, full = tree / "empty", tree / "full"
    for folder in (empty, full):
        folder.mkdir()
        made = cgroups.Group.__new__(cgroups.Group)
        made.folder = folder
        if folder is full:
            (folder / "somebody").write_text("")
        made.close()
    assert not empty.exists() and full.exists()


@pytest.mark.slow
def test_a_real_group_ends_what_holds_too_much():
    made = cgroups.group(Limits(memory=64, processes=20))
    if made is None:
        pytest.skip("this system has no control group for us")
    try:
        hold = "import mmap; m = mmap.mmap(-1, 2**27); [m.__setitem__(i, 1) for i in range(0, 2**27, 4096)]"
        ran = subprocess.run(made.entered(["/usr/bin/env", "python3", "-c", hold]), capture_output=True)
        assert ran.returncode != 0
    finally:
        made.close()
    assert not made.folder.exists()
