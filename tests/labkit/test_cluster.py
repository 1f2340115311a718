"""docs/cluster.md: torchrun and the programs take every command in it, and what one machine can run runs."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
PROGRAMS = ["train_ddp", "train_fsdp", "train_tp", "train_pp"]
BLOCKS = re.findall(r"```bash\n(.*?)```", GUIDE, re.S)
SCRIPT = next(block for block in BLOCKS if block.startswith("#!"))
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if "torchrun " in line]
ALONE = [line for line in LINES if "--standalone" in line]
(TOGETHER,) = [line for line in LINES if "HOST:" in line]
SMALL = " --context 8 --width 16 --batch-size 4 --every 1 --steps 2 --text rhyme.txt"


def parsed(line):
    """(torchrun's options, the program's) of a command line."""
    words = shlex.split(line[line.index("torchrun ") :])[1:]
    launcher = get_args_parser().parse_args(words)
    assert launcher.module, line
    program = importlib.import_module(launcher.training_script)
    return launcher, program.arguments(launcher.training_script_args)


@pytest.mark.parametrize("line", LINES)
def test_torchrun_and_the_program_take_the_options(line):
    launcher, options = parsed(line)
    assert launcher.training_script == f"labkit.{options.program}"
    assert options.steps >= 100


def test_every_file_and_option_that_is_named_is_there(capsys):
    named = set(re.findall(r"labkit/\w+\.py", GUIDE))
    assert {f"labkit/{program}.py" for program in PROGRAMS} < named
    assert all((ROOT / name).is_file() for name in named)
    assert [parsed(line)[1].program for line in ALONE] == PROGRAMS
    for program in PROGRAMS:
        with pytest.raises(SystemExit):
            importlib.import_module(f"labkit.{program}").arguments(["--help"])
    known = capsys.readouterr().out + get_args_parser().format_help() + "--requeue of SLURM, --pid of py-spy"
    prose = re.sub(r"```bash.*?```", "", GUIDE, flags=re.S)
    assert [option for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", prose) if option not in known] == []


def ready(folder):
    """An environment in which torchrun is found and the course's packages are, and a text to train on."""
    (folder / "rhyme.txt").write_text("green bottles hanging on the wall, " * 20)
    (folder / "bin").mkdir()
    torchrun = folder / "bin/torchrun"
    torchrun.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n')
    torchrun.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # Two that play two machines find each other by the loopback, whatever this machine's name is.
    loopback = "lo" if sys.platform == "linux" else "lo0"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": loopback}


posix = pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")


def shell(line, folder, **more):
    """Run a line in a folder that `ready` has prepared; what it printed. It must succeed."""
    done = subprocess.run(
        ["bash", "-c", line], env=ready(folder) | more, cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(command, folder):
    """A command for several machines with GPUs, as one without any can run it."""
    command = command.replace("--nproc-per-node gpu", "--local-addr 127.0.0.1 --nproc-per-node 1")
    return command.rstrip().replace("/shared/run1", str(folder / "run1")) + SMALL


@posix
@pytest.mark.slow
@pytest.mark.parametrize("line", ALONE)
def test_what_is_for_one_machine_runs(line, tmp_path):
    assert "done: " in shell(line + SMALL, tmp_path)


@posix
@pytest.mark.slow
def test_two_torchruns_are_one_run(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = here(TOGETHER.replace("HOST:29400", f"127.0.0.1:{port}"), tmp_path)
    printed = shell(f"{command} & first=$!; {command} && wait $first", tmp_path)
    assert "2 ranks on CPU" in printed and printed.count("done: ") == 1
    assert os.listdir(tmp_path / "run1") == ["step-00000002"]


@posix
@pytest.mark.slow
def test_the_slurm_script_runs_with_what_slurm_gives_it(tmp_path):
    """SLURM's two commands are played: srun starts a task on each of two nodes, which are this machine."""
    played = """
        scontrol() { [ "$*" = "show hostnames n[1-2]" ] && printf '127.0.0.1\\nn2\\n'; }
        srun() { "$@" & first=$!; "$@" && wait $first; }
    """
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": str(os.getpid())}
    printed = shell(played + here(SCRIPT, tmp_path), tmp_path, **slurm)
    assert "2 ranks on CPU" in printed and printed.count("done: ") == 1
    assert os.listdir(tmp_path / "run1") == ["step-00000002"]
