import contextlib
import io
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import psutil
import pytest
import rank_functions as on_rank
import torch

from labkit import RankError, launch


def offspring() -> set[int]:
    """Processes started from here, without the servers that fork ranks and kernels and multiprocessing's own helper."""
    left = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            helpers = ("multiprocessing.forkserver", "multiprocessing.resource_tracker", "warm_kernels.py serve")
            helper = any(name in command for name in helpers)
            if not (helper and process.ppid() == os.getpid()):
                left.add(process.pid)
    return left


@pytest.fixture(autouse=True)
def nothing_left():
    before = offspring()  # such as a sandbox that tests of other modules share until the end
    yield
    deadline = time.monotonic() + 5
    while (left := offspring() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert not list(pathlib.Path(tempfile.gettempdir()).glob(f"labkit-{os.getpid()}-*"))


def failure(function, *args, **options) -> RankError:
    with pytest.raises(RankError) as caught:
        launch(function, *args, **options)
    return caught.value


def test_results_come_in_rank_order():
    for result in launch(on_rank.total, 1.0, ranks=3):
        assert torch.equal(result, torch.full((3,), 6.0))
    assert launch(on_rank.rank_and_seed, ranks=3) == [
        (rank, torch.rand(1, generator=torch.Generator().manual_seed(0)).item(), 1) for rank in range(3)
    ]


def test_one_rank_is_enough():
    assert launch(lambda: 5, ranks=1) == [5]


@pytest.mark.parametrize("options", [{"ranks": 0}, {"limit": 0}])
def test_senseless_numbers_are_refused(options):
    with pytest.raises(ValueError, match="ranks >= 1"):
        launch(on_rank.prints, **options)


def test_tensors_come_back_plain():
    result = launch(on_rank.assorted, ranks=1)[0]
    expected = on_rank.assorted()
    for name, tensor in expected.items():
        if name == "list":
            assert result[name] == tensor
            continue
        assert type(result[name]) is torch.Tensor and not result[name].requires_grad
        assert result[name].dtype == tensor.dtype and torch.equal(result[name], tensor.detach())
    assert result["view"].untyped_storage().nbytes() == 12


def test_functions_of_a_notebook_cell():
    cell = {"__name__": "__main__"}
    source = """
        import torch, torch.distributed as dist
        scale = 10
        class Box:
            def __init__(self, x): self.x = x
        def helper(x): return Box(x * scale)
        def work(x): return helper(x + dist.get_rank()).x
    """
    exec(textwrap.dedent(source), cell)
    assert launch(cell["work"], 1, ranks=2) == [10, 20]
    shift = 5
    assert launch(lambda x: x + shift, 1, ranks=2) == [6, 6]


def test_a_rank_that_raises():
    error = failure(on_rank.raise_on, 1, ranks=3)
    assert (error.kind, error.rank, type(error.error)) == ("raised", 1, ValueError)
    first, second, *rest = str(error).splitlines()
    assert first == "Rank 1 raised ValueError: this rank is broken"
    assert second.endswith('in raise_on:  raise ValueError("this rank is broken")')
    assert "labkit" not in str(error) and "site-packages" not in str(error)
    assert error._render_traceback_() == [f"RankError: {error}"]


def test_ranks_that_all_raise_are_told_once():
    error = failure(on_rank.raise_everywhere, ranks=2)
    assert str(error).startswith("Ranks 0 and 1 raised KeyError: 'missing'") and str(error).count("missing") == 2


def test_a_rank_that_exits():
    error = failure(on_rank.exit_on, 1, 3, ranks=3)
    assert (error.kind, error.rank) == ("died", 1) and "exit code 3" in str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_rank_that_is_killed():
    error = failure(on_rank.kill_on, 0, ranks=2)
    assert (error.kind, error.rank) == ("died", 0) and "SIGKILL" in str(error) and "memory" in str(error)


def test_two_receives_are_a_deadlock_seen_early():
    start = time.monotonic()
    error = failure(on_rank.both_receive, ranks=2, limit=60)
    assert time.monotonic() - start < 30 and error.kind == "deadlock"
    assert "rank 0 waits in recv from rank 1 (float32 [3]), line " in str(error)
    assert "rank 1 waits in recv from rank 0 (float32 [3]), line " in str(error)
    assert "in both_receive: dist.recv(torch.zeros(3), 1 - dist.get_rank())" in str(error)


def test_a_send_that_nobody_keeps_is_a_deadlock_seen_early():
    error = failure(on_rank.forgets_its_send, ranks=2, limit=60)
    assert error.kind == "deadlock" and str(error).startswith("The ranks wait for one another")
    assert all(f"rank {rank} waits in recv from rank {1 - rank} (float32 [3]), line " in str(error) for rank in (0, 1))


def test_ranks_that_move_a_lot_are_no_deadlock():
    assert launch(on_rank.moves, 60_000_000, ranks=2) == [1.0, 0.0]


def test_mismatched_collectives_are_named():
    error = failure(on_rank.mismatched, ranks=2, limit=1)
    assert error.kind == "deadlock" and "within 1 s" in str(error)
    assert "rank 0 waits in broadcast (float32 [10])" in str(error)
    assert "rank 1 waits in all_reduce (float32 [10])" in str(error)


def test_a_rank_that_leaves_is_named():
    text = str(failure(on_rank.one_leaves, ranks=3, limit=1))
    assert "rank 0 waits in barrier" in text and "rank 1 has finished" in text and "rank 2 waits in barrier" in text


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("all_gather", "all_gather (float32 [4])"),
        ("reduce_scatter", "reduce_scatter (float32 [4])"),
        ("isend", "send to rank 1 (float32 [1000000])"),
        ("async all_reduce", "all_reduce (float32 [4])"),
        ("barrier", "barrier"),
        ("broadcast", "broadcast (float32 [4])"),
    ],
)
def test_every_way_to_wait_is_named(call, named):
    error = failure(on_rank.waits_in, call, ranks=2, limit=0.7)
    assert f"rank 0 waits in {named}, line" in str(error)


def test_slow_ranks_are_no_deadlock():
    assert launch(on_rank.slow_partner, 3.6, ranks=2) == [0, 1]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows stops no processes")
def test_a_rank_without_processor_time_is_no_deadlock():
    assert launch(on_rank.stopped, 2.2, ranks=2) == [0, 1]


def test_help_from_a_thread_is_no_deadlock():
    assert launch(on_rank.helped_by_a_thread, 3.6, ranks=2) == [2.0, 1.0]


def test_an_endless_loop_is_cut():
    error = failure(on_rank.never_ends, ranks=2, limit=0.5)
    assert error.kind == "too slow" and "rank 0 is running" in str(error) and "within 0.5 s" in str(error)


def test_output_lands_in_the_callers_stdout():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        launch(on_rank.prints, ranks=2)
    lines = sorted(out.getvalue().splitlines())
    assert lines == sorted(
        f"[rank {rank}] {text}" for rank in (0, 1) for text in (f"to stdout from {rank}", "to stderr", "no newline")
    )


def test_output_is_bounded():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        launch(on_rank.prints_a_lot, ranks=1)
    assert len(out.getvalue()) < 30_000 and "the rest of the output is cut" in out.getvalue()


def test_what_cannot_travel_is_told():
    lock = threading.Lock()
    assert "can't be sent to the ranks" in str(failure(lambda: lock, ranks=1))
    assert "can't be sent back" in str(failure(on_rank.returns_a_generator, ranks=1))


def ended(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(5)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_a_ranks_own_children_end_with_it():
    for pid in launch(on_rank.leaves_a_child, ranks=2):
        ended(pid)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.parametrize("stuck", [False, True])
def test_they_end_when_a_rank_is_cut_too(tmp_path, stuck):
    failure(on_rank.leaves_a_child_and_fails, str(tmp_path / "pid"), stuck, ranks=1, limit=2)
    ended(int((tmp_path / "pid").read_text()))


def test_from_a_thread():
    results = []
    threads = [threading.Thread(target=lambda: results.append(launch(on_rank.total, 0.0, ranks=2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[x.tolist() for x in result] for result in results] == [[[1.0] * 3] * 2] * 2


def files_left(tmp_path) -> list[str]:
    """What is in the script's folder for temporary files, apart from torch's own cache for compiled code."""
    return [path.name for path in (tmp_path / "t").iterdir() if not path.name.startswith("torchinductor_")]


SCRIPT = """
import os, sys, torch, torch.distributed as dist
from labkit import launch
print("the script runs", flush=True)
def work(x):
    if x < 0:
        print("up", flush=True)
        dist.recv(torch.zeros(1), 1 - dist.get_rank())
    return dist.get_rank() + x
print(launch(work, int(sys.argv[1]), ranks=2))
"""


def start_script(tmp_path, argument: str) -> subprocess.Popen:
    script = tmp_path / "no_guard.py"
    script.write_text(SCRIPT, encoding="utf-8")
    folders = [str(pathlib.Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    env["TMPDIR"] = str(tmp_path / "t")
    (tmp_path / "t").mkdir()
    return subprocess.Popen([sys.executable, str(script), argument], stdout=subprocess.PIPE, text=True, env=env)


def test_a_script_without_a_main_guard(tmp_path):
    out, _ = start_script(tmp_path, "5").communicate(timeout=120)
    assert out == "the script runs\n[5, 6]\n"
    assert not files_left(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_script_leaves_no_process(tmp_path, signal_number):
    process = start_script(tmp_path, "-1")
    seen = [process.stdout.readline() for _ in range(3)]
    assert sorted(seen[1:]) == ["[rank 0] up\n", "[rank 1] up\n"]
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    process.send_signal(signal_number)
    process.communicate(timeout=30)
    assert not psutil.wait_procs(children, timeout=10)[1]
    if signal_number == signal.SIGINT:
        assert not files_left(tmp_path)


def test_starting_afresh_works_too(monkeypatch):
    """What Windows and macOS do."""
    # labkit.launch is the function; the module of that name is found here.
    monkeypatch.setattr(sys.modules["labkit.launch"], "_context", lambda: multiprocessing.get_context("spawn"))
    assert [x.tolist() for x in launch(on_rank.total, 0.0, ranks=2)] == [[1.0] * 3] * 2
