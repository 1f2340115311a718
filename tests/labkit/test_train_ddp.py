"""labkit/train_ddp.py: the same numbers on any number of ranks, checkpoints that are whole, a word without torchrun."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from labkit import launch, train_ddp

SMALL = ["--batch-size", "4", "--context", "8", "--width", "16", "--layers", "1", "--every", "1"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "rhyme.txt"
    file.write_text("".join(f"{n} green bottles hanging on the wall, " for n in range(99, 9, -1)))
    return str(file)


def run(options, ranks):
    train_ddp.train(train_ddp.arguments(options), torch.device("cpu"))


def losses(capsys, text, *options, ranks=2):
    """Run the script's train() on ranks and read off what it prints: {step: loss}."""
    launch(run, ["--text", text, *SMALL, *options], ranks, ranks=ranks)
    printed = capsys.readouterr().out
    return {int(step): float(loss) for step, loss in re.findall(r"step +(\d+) +loss ([\d.]+)", printed)}


def test_the_loss_falls(capsys, text):
    seen = losses(capsys, text, "--steps", "30", "--lr", "0.01")
    assert seen[30] < 0.8 * seen[1]


@pytest.mark.parametrize(("ranks", "size", "accumulate"), [(1, 12, 1), (3, 4, 1), (2, 2, 3), (1, 4, 3)])
def test_the_same_batch_gives_the_same_losses_however_it_is_split(capsys, text, ranks, size, accumulate):
    split = ["--steps", "1", "--batch-size", str(size), "--accumulate", str(accumulate)]
    assert losses(capsys, text, *split, ranks=ranks)[1] == pytest.approx(reference(text), abs=2e-4)


def reference(text):
    """The first loss of one process on the first 12 windows of the sampler's order."""
    options = train_ddp.arguments(["--text", text, *SMALL])
    torch.manual_seed(options.seed)
    data = train_ddp.Windows(train_ddp.read_text(text), options.context)
    model = train_ddp.CharGPT(len(data.alphabet), options.context, options.width, options.layers)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(options.seed))[:12]
    ids, targets = map(torch.stack, zip(*(data[i] for i in order.tolist()), strict=True))
    return train_ddp.loss_of(model(ids), targets).item()


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(capsys, text, tmp_path):
    file = ["--checkpoint", str(tmp_path / "run.pt")]
    whole = losses(capsys, text, "--steps", "60")  # longer than an epoch
    first = losses(capsys, text, "--steps", "55", *file)
    rest = losses(capsys, text, "--steps", "60", *file)
    assert list(rest) == [56, 57, 58, 59, 60]
    assert first | rest == whole
    assert os.listdir(tmp_path) == ["run.pt"]


def test_every_epoch_has_another_order(text):
    def first_two_epochs():
        data = train_ddp.Windows(train_ddp.read_text(text), 8)
        n = len(data) // 4
        stream = train_ddp.batches(data, 4, seed=0, skip=0)
        return [[next(stream)[0] for _ in range(n)] for _ in range(2)]

    one, two = launch(first_two_epochs, ranks=1)[0]
    assert not torch.equal(torch.cat(one), torch.cat(two))


def test_a_write_that_breaks_off_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    file = str(tmp_path / "run.pt")
    train_ddp.save(file, {"step": 1})

    def full_disk(state, path):
        with open(path, "wb") as half:
            half.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        train_ddp.save(file, {"step": 2})
    assert torch.load(file, weights_only=True) == {"step": 1}


def test_a_checkpoint_of_another_model_is_refused(capsys, text, tmp_path):
    file = ["--checkpoint", str(tmp_path / "run.pt")]
    losses(capsys, text, "--steps", "1", *file, ranks=1)
    with pytest.raises(Exception, match="another size or alphabet"):
        losses(capsys, text, "--steps", "2", "--width", "32", *file, ranks=1)


def test_without_torchrun_it_says_what_to_type():
    environment = {k: v for k, v in os.environ.items() if k != "RANK"}
    command = [sys.executable, "-m", "labkit.train_ddp"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip() == train_ddp.NOT_STARTED


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--text", "nowhere.txt"]])
def test_a_wrong_option_is_one_sentence(wrong, capsys):
    with pytest.raises(SystemExit):
        train_ddp.arguments(wrong)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_under_torchrun(text):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "labkit.train_ddp", "--text", text, *SMALL, "--steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step ") >= 3
    assert "done:" in done.stdout
