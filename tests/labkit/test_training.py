"""train_ddp, train_fsdp, train_tp, train_pp: the losses of one process, checkpoints that last, a word when refused."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from labkit import RankError, cluster, launch, train_ddp, training

PROGRAMS = ["train_ddp", "train_fsdp", "train_tp", "train_pp"]
SMALL = ["--context", "8", "--width", "16", "--layers", "2", "--every", "1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "rhyme.txt"
    file.write_text("".join(f"{n} green bottles hanging on the wall, " for n in range(99, 89, -1)))
    return str(file)


def run(program, options):
    module = importlib.import_module(f"labkit.{program}")
    module.train(module.arguments(options), cluster.Place(torch.device("cpu")))


def die_at(program, options, step):
    """As `run`, but rank 1 is killed before it takes a step, with the others on their way."""
    module = importlib.import_module(f"labkit.{program}")
    original, taken = module.step_once, []

    def step_once(*given):
        taken.append(None)
        if len(taken) == step and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given)

    module.step_once = step_once
    run(program, options)


def at_first_step(program, options, look):
    """What `look(model, optimizer)` gives on this rank where the first step would be taken; none is."""
    module, found = importlib.import_module(f"labkit.{program}"), []

    def step_once(model, optimizer, *_):
        found.append(look(model, optimizer))
        return torch.zeros(()), True

    module.step_once = step_once
    run(program, options)
    return found[0]


def as_on_a_gpu(program, options):
    """As `run`, with what a GPU brings along: bfloat16, and optimizers that step lists of parameters at once."""
    module, plain = importlib.import_module(f"labkit.{program}"), torch.optim.AdamW
    torch.optim.AdamW = lambda parameters, lr: plain(parameters, lr=lr, foreach=True)
    module.train(module.arguments(options), cluster.Place(torch.device("cpu"), bf16=True))


def seen(printed):
    """What a program has printed, as {step: loss}."""
    return {int(step): float(loss) for step, loss in re.findall(r"step +(\d+) +loss ([\d.]+)", printed)}


def losses(capsys, program, text, *options, ranks=2):
    launch(run, program, ["--text", text, *SMALL, *options], ranks=ranks)
    return seen(capsys.readouterr().out)


def reference(text, steps, rows, *more):
    """The losses of plain training in one process: same seed, same rows, nothing of torch.distributed."""
    options = train_ddp.arguments(["--text", text, *SMALL, *more])
    data, model = training.prepare(options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    orders = [torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch)) for epoch in range(9)]
    order, found = torch.cat(orders).tolist(), []
    for step in range(steps):
        ids, targets = map(torch.stack, zip(*(data[i] for i in order[step * rows : (step + 1) * rows]), strict=True))
        loss = train_ddp.loss_of(model(ids), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    return dict(enumerate(found, start=1))


SPLITS = [
    ("train_ddp", 1, 12, 1),
    ("train_ddp", 3, 4, 1),
    ("train_ddp", 2, 2, 3),
    ("train_ddp", 4, 3, 1),
    ("train_fsdp", 2, 3, 2),
    ("train_fsdp", 4, 3, 1),
    ("train_tp", 2, 6, 2),
    ("train_tp", 4, 12, 1),
    ("train_tp --tensor-parallel 2", 4, 3, 2),
    ("train_pp", 2, 3, 4),
    ("train_pp --layers 4", 4, 3, 4),
    ("train_pp --schedule gpipe", 2, 6, 2),
]


@pytest.mark.parametrize(("command", "ranks", "size", "accumulate"), SPLITS)
def test_the_losses_are_those_of_one_process_however_the_batch_is_split(capsys, text, command, ranks, size, accumulate):
    program, *more = command.split()
    more += ["--steps", "6", "--batch-size", str(size), "--accumulate", str(accumulate)]
    deep = ["--layers", "4"] if "--layers 4" in command else []
    expected = reference(text, 6, 12, *deep)  # an epoch and a half
    assert losses(capsys, program, text, *more, ranks=ranks) == pytest.approx(expected, abs=2e-4)


HELD = [("train_ddp", 2), ("train_fsdp", 2), ("train_fsdp", 4), ("train_tp", 2), ("train_tp --tensor-parallel 2", 4)]


@pytest.mark.parametrize(("command", "ranks"), [*HELD, ("train_pp", 2)])
def test_each_rank_holds_its_part_of_the_model_and_no_more(text, command, ranks):
    def held(model, optimizer):
        parts = [p.to_local() if hasattr(p, "to_local") else p for p in model.parameters()]
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(parts)
        return sum(part.numel() for part in parts)

    program, *more = command.split()
    options = ["--text", text, *SMALL, "--steps", "1", "--batch-size", "2", *more]
    _, model = training.prepare(train_ddp.arguments(["--text", text, *SMALL]))
    whole = sum(p.numel() for p in model.parameters())
    found = launch(at_first_step, program, options, held, ranks=ranks)
    if program == "train_ddp":
        assert found == [whole] * ranks
    elif program == "train_tp":
        assert max(found) < 1.3 * whole / ranks  # norms and positions are cut only where there is a grid
    else:
        assert sum(found) == whole and max(found) < 0.65 * whole


@pytest.mark.parametrize(("command", "ranks"), [*HELD[1::2], ("train_ddp", 2), ("train_pp", 2)])
def test_bfloat16_is_a_little_off_and_not_much(capsys, text, command, ranks):
    program, *more = command.split()
    rows = {"train_tp": 6, "train_pp": 3}.get(program, 12 // ranks)
    options = ["--text", text, *SMALL, "--steps", "3", "--batch-size", str(rows), *more]
    launch(as_on_a_gpu, program, options, ranks=ranks)
    printed = capsys.readouterr().out
    assert "(gloo, bfloat16)" in printed
    expected = reference(text, 3, {"train_tp": 6}.get(program, 12))
    assert seen(printed) == pytest.approx(expected, abs=0.02) and seen(printed) != pytest.approx(expected, abs=1e-4)


def test_the_loss_falls(capsys, text):
    found = losses(capsys, "train_ddp", text, "--steps", "30", "--lr", "0.01", "--batch-size", "4")
    assert found[30] < 0.8 * found[1]


DEATHS = [
    ("train_ddp", "--dropout 0.2 --batch-size 4", 2, "--batch-size 4", 2),
    ("train_ddp", "--batch-size 3 --accumulate 2", 2, "--batch-size 12", 1),
    ("train_fsdp", "--dropout 0.2 --batch-size 4", 2, "--batch-size 4", 2),
    ("train_fsdp", "--batch-size 6", 2, "--batch-size 3", 4),
    ("train_tp", "--batch-size 6 --tensor-parallel 2", 4, "--batch-size 12", 2),
    ("train_pp", "--dropout 0.2 --batch-size 3", 2, "--batch-size 3", 2),
    ("train_pp", "--batch-size 3 --layers 4", 2, "--batch-size 3 --layers 4", 4),
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize(("program", "split", "ranks", "afterwards", "ranks_afterwards"), DEATHS)
def test_after_a_killed_rank_the_losses_go_on(
    capsys, text, tmp_path, program, split, ranks, afterwards, ranks_afterwards
):
    path = tmp_path / "run"
    kept = ["--steps", "6", "--checkpoint", str(path)]
    dropout = ["--dropout", "0.2"] if "--dropout" in split else []
    whole = losses(capsys, program, text, "--steps", "6", *split.split(), ranks=ranks)
    with pytest.raises(RankError, match="Rank 1 was killed by SIGKILL"):
        launch(die_at, program, ["--text", text, *SMALL, *kept, *split.split()], 5, ranks=ranks)
    first = seen(capsys.readouterr().out)
    assert set(first) == {1, 2, 3, 4}
    rest = losses(capsys, program, text, *kept, *afterwards.split(), *dropout, ranks=ranks_afterwards)
    assert set(rest) == {5, 6}
    assert first | rest == (whole if ranks == ranks_afterwards else pytest.approx(whole, abs=2e-4))
    left = os.listdir(tmp_path) + (os.listdir(path) if path.is_dir() else [])
    assert left == (["run"] if program == "train_ddp" else ["run", "step-00000006"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize("program", ["train_ddp", "train_fsdp"])  # one for each kind of checkpoint
def test_torchrun_starts_again_after_a_rank_was_killed(text, tmp_path, program):
    options = ["--text", text, *SMALL, "--steps", "40", "--batch-size", "3", "--checkpoint", str(tmp_path / "run")]
    command = [*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "1", "-m", f"labkit.{program}", *options]
    found, starts = {}, []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        told = []
        for line in process.stdout:
            told.append(line)
            starts += [int(step) for step in re.findall(r"from step (\d+)", line)]
            for step, loss in seen(line).items():
                # A step that was shown and not yet kept is taken again, with the same loss.
                assert found.setdefault(step, loss) == loss
            if len(starts) == 1 and 3 in found:
                victim = psutil.Process(process.pid).children()[-1]
                victim.kill()
                starts.append("killed")
    assert process.returncode == 0, "".join(told)
    assert starts[:2] == [0, "killed"] and len(starts) == 3 and 2 <= starts[2] < 40  # step 3 was shown, if not kept
    assert list(found) == list(range(1, 41))


def test_a_step_that_was_kept_is_whole_or_not_there(tmp_path, monkeypatch):
    file = str(tmp_path / "run.pt")
    cluster.write(file, {"step": 1})

    def full_disk(state, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        cluster.write(file, {"step": 2})
    assert torch.load(file, weights_only=True) == {"step": 1}


@pytest.mark.parametrize("program", ["train_ddp", "train_fsdp"])
def test_what_is_left_of_a_write_that_was_cut_off_is_not_resumed_from(capsys, text, tmp_path, program):
    options = ["--steps", "1", "--batch-size", "2", "--checkpoint", str(tmp_path / "run")]
    losses(capsys, program, text, *options, ranks=1)
    if program == "train_ddp":
        partial = tmp_path / "run.partial"
        partial.write_bytes(b"half")
    else:
        partial = tmp_path / "run/step-00000002.partial"
        partial.mkdir()
    options[1] = "2"
    assert list(losses(capsys, program, text, *options, ranks=1)) == [2]
    assert not partial.exists()


@pytest.mark.parametrize("program", ["train_ddp", "train_fsdp"])
def test_on_resuming_another_setting_is_honoured_or_refused(capsys, text, tmp_path, program):
    def resumed(*options, words=text):
        with pytest.raises(RankError) as caught:
            losses(capsys, program, words, "--steps", "9", *kept, *options, ranks=1)
        return str(caught.value)

    kept = ["--batch-size", "2", "--checkpoint", str(tmp_path / "run")]
    losses(capsys, program, text, "--steps", "1", *kept, ranks=1)
    assert "run holds another run: seed was 0 and is 7." in resumed("--seed", "7")
    assert "width was 16 and is 32" in resumed("--width", "32")
    other = tmp_path / "other.txt"
    other.write_text(Path(text).read_text().replace("green", "black"))
    assert "text was" in resumed(words=str(other))
    launch(run, program, ["--text", text, *SMALL, "--steps", "2", *kept, "--lr", "1e-9", "--accumulate", "2"], ranks=1)
    told = capsys.readouterr().out
    assert "changed since the checkpoint: lr was 0.003 and is 1e-09, accumulate was 1 and is 2" in told
    another = ["--text", text, *SMALL, "--steps", "9", *kept, "--lr", "0.5"]
    assert launch(at_first_step, program, another, lambda _, optimizer: optimizer.param_groups[0]["lr"], ranks=1) == [
        0.5
    ]
    capsys.readouterr()
    launch(run, program, ["--text", text, *SMALL, "--steps", "1", *kept], ranks=1)
    assert "nothing to do after step 9" in capsys.readouterr().out


def test_what_is_no_checkpoint_is_refused(capsys, text, tmp_path):
    (tmp_path / "run").write_bytes(b"something else")
    with pytest.raises(RankError, match="run can't be resumed from"):
        losses(capsys, "train_ddp", text, "--checkpoint", str(tmp_path / "run"), ranks=1)
    with pytest.raises(RankError, match="run is a file"):
        losses(capsys, "train_fsdp", text, "--checkpoint", str(tmp_path / "run"), ranks=1)


@pytest.mark.parametrize("program", ["train_ddp", "train_fsdp", "train_pp"])
def test_dropout_differs_between_ranks_and_seeds(text, program):
    options = ["--text", text, *SMALL, "--steps", "1", "--batch-size", "2"]

    def drawn(*more):
        return launch(at_first_step, program, [*options, *more], lambda *_: torch.rand(3), ranks=2)

    one, two = drawn()
    (again, _), (other, _) = drawn("--seed", "0"), drawn("--seed", "1")
    assert torch.equal(one, again)
    assert not torch.equal(one, two) and not torch.equal(one, other)


def test_rows_go_round_in_a_new_order_every_epoch():
    stream = training.rows_of(10, 3, seed=0, share=(0, 1), seen=0)
    rows = sum((next(stream) for _ in range(10)), [])
    epochs = [rows[10 * i : 10 * i + 10] for i in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    shares = [training.rows_of(10, 1, seed=0, share=(part, 3), seen=6) for part in range(3)]
    assert [next(share)[0] for _ in range(8) for share in shares] == rows[6:30]


def test_a_gradient_that_is_not_finite_takes_no_step():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), torch.nan)
    optimizer = torch.optim.AdamW([weight])
    assert not training.step_if_finite(optimizer, torch.tensor(torch.inf))
    assert not training.step_if_finite(optimizer, weight.grad.norm())
    assert torch.equal(weight, torch.ones(2))
    assert training.step_if_finite(optimizer, torch.tensor(1.0))


@pytest.mark.parametrize("program", PROGRAMS)
def test_steps_that_are_not_finite_are_skipped_and_end_the_run(capsys, text, program):
    with pytest.raises(RankError, match="inf or NaN in 5 steps in a row, up to step 6: try a lower --lr"):
        losses(capsys, program, text, "--steps", "9", "--batch-size", "4", "--lr", "1e30")
    assert len(re.findall(r"step +[2-5]   skipped", capsys.readouterr().out)) == 4


def machine(host, ranks, gpus, bf16=True):
    return [{"host": host, "ranks": ranks, "gpus": gpus, "bf16": bf16 and gpus > 0}] * ranks


@pytest.mark.parametrize(
    ("told", "agreed"),
    [
        (machine("a", 2, 0) + machine("b", 2, 0), {"gpu": False, "bf16": False}),
        (machine("a", 2, 2) + machine("b", 4, 8), {"gpu": True, "bf16": True}),
        (machine("a", 2, 2) + machine("old", 1, 1, bf16=False), {"gpu": True, "bf16": False}),
    ],
)
def test_ranks_agree_on_the_backend(told, agreed):
    assert cluster.agree(told) == agreed


@pytest.mark.parametrize(
    ("told", "first"),
    [
        (machine("a", 2, 2) + machine("b", 2, 0), "b has 0 GPUs for its 2 ranks"),
        (machine("a", 2, 1), "a has 1 GPUs for its 2 ranks"),
        (machine("a", 4, 3) + machine("b", 2, 2), "a has 3 GPUs for its 4 ranks"),
    ],
)
def test_nobody_falls_back_to_cpu_alone(told, first):
    assert cluster.agree(told) == {
        "refused": f"{first}: start one rank a GPU everywhere (--nproc-per-node), or give --cpu to all."
    }


def test_ranks_that_start_again_do_not_hear_those_before():
    store = dist.HashStore()

    def start(world, gpus):
        """Every rank is a thread, and the last ones come late."""
        met, told = {}, {"host": "a", "ranks": world, "gpus": gpus, "bf16": False}

        def come(rank):
            time.sleep(0.1 * rank)
            met[rank] = cluster.meet(store, rank, world, told, 20.0)

        threads = [threading.Thread(target=come, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        met[0][0].set("address", str(gpus))
        assert {each.get("address") for each, _ in met.values()} == {str(gpus).encode()}
        return [met[rank][1] for rank in range(world)]

    assert start(3, gpus=0) == [{"gpu": False, "bf16": False}] * 3
    assert start(3, gpus=3) == [{"gpu": True, "bf16": False}] * 3  # all have been started again, elsewhere
    assert start(2, gpus=0) == [{"gpu": False, "bf16": False}] * 2


def test_a_rank_that_waits_in_vain_says_so():
    store = dist.HashStore()
    store.set("labkit/heard", '["of another", "start"]')
    with pytest.raises(SystemExit, match="Rank 1 has waited 0.1 s for the others: are all 2 ranks started?"):
        cluster.meet(store, 1, 2, {}, 0.1)


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_torchrun_it_says_what_to_type(program, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.delitem(sys.modules, f"labkit.{program}", raising=False)
    with pytest.raises(SystemExit, match=f"^Start this with torchrun.*--nproc-per-node 2 -m labkit.{program}$"):
        runpy.run_module(f"labkit.{program}", run_name="__main__")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("--steps 0 --width 0", "--steps and --width must be at least 1"),
        ("--text nowhere.txt", "--text nowhere.txt: there is no such file"),
        ("--width 10", "--width 10 can't be divided among --heads 4"),
        ("--lr -1", "--lr and --timeout must be above 0"),
        ("--seed -1", "--seed must be at least 0"),
    ],
)
def test_a_wrong_option_is_one_sentence(program, wrong, sentence, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"labkit.{program}").arguments(wrong.split())
    assert capsys.readouterr().err.strip().endswith(f"error: {sentence}")


@pytest.mark.parametrize(
    ("program", "wrong", "sentence"),
    [
        ("train_ddp", "--dropout 1", "--dropout must be at least 0 and below 1"),
        ("train_tp", "--tensor-parallel 0", "--tensor-parallel must be at least 1"),
        ("train_pp", "--schedule best", "invalid choice: 'best'"),
    ],
)
def test_so_is_one_of_a_single_program(program, wrong, sentence, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"labkit.{program}").arguments(wrong.split())
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "wrong", "sentence"),
    [
        ("train_tp", "--tensor-parallel 3", "--tensor-parallel 3 must divide the 2 ranks"),
        ("train_tp", "--heads 1", "--tensor-parallel 2 must divide the 2 ranks and the --heads 1"),
        ("train_pp", "--layers 1", "--layers 1 are too few for 2 ranks"),
        ("train_pp", "--accumulate 1", "give --accumulate 2 or more, or --schedule gpipe"),
        ("train_ddp", "--context 1000", "too short for one row of --context 1000"),
        ("train_ddp", "--batch-size 100", "rows of 8 characters: too few for one step of 200"),
    ],
)
def test_and_what_does_not_go_with_the_ranks(capsys, text, program, wrong, sentence):
    with pytest.raises(RankError, match=sentence):
        losses(capsys, program, text, *wrong.split())


def test_a_failure_ends_the_process_at_once(capsys, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: pytest.fail("a collective, which others may never join"))
    cluster.fail(SystemExit("one sentence"))
    assert capsys.readouterr().err == "one sentence\n"
    cluster.fail(SystemExit(3))
    cluster.fail(ValueError("broken"))
    assert "ValueError: broken" in capsys.readouterr().err
    assert ended == [1, 3, 1]


FAILING = """
import torch, torch.distributed as dist
from labkit import cluster, train_ddp

def train(options, place):
    if dist.get_rank() == 1:
        raise ValueError("this rank is broken")
    dist.all_reduce(torch.zeros(1))

cluster.main("failing", lambda: train_ddp.arguments([]), train)
"""


@pytest.mark.slow
def test_a_rank_that_raises_ends_the_others_in_their_collective(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    command = [*TORCHRUN, "--nproc-per-node", "2", str(tmp_path / "failing.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "ValueError: this rank is broken" in done.stderr


def test_the_names_that_chapters_import():
    assert train_ddp.CharGPT is training.CharGPT and train_ddp.Windows is training.Windows
    assert train_ddp.loss_of is training.loss_of
    assert isinstance(train_ddp.arguments([]), Namespace)
