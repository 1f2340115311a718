"""What train_ddp, train_fsdp, train_tp and train_pp have in common: text, model, batches, options and the loop.

How the ranks come together and what is kept of a run is in labkit/cluster.py. A program of your own: copy one of the
four, and these two files beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from labkit.cluster import Place, SharedFolder, WholeFile, refuse

SKIPS = 5  # steps in a row whose gradient may be inf or NaN


class Windows(Dataset):
    """Non-overlapping pieces of a text as (characters, next characters), both int64 [context]."""

    def __init__(self, text: str, context: int):
        self.alphabet = sorted(set(text))
        number = torch.zeros(ord(self.alphabet[-1]) + 1, dtype=torch.int16)
        number[[ord(character) for character in self.alphabet]] = torch.arange(len(self.alphabet), dtype=torch.int16)
        codes = torch.frombuffer(bytearray(text, "utf-32-le"), dtype=torch.int32)
        self.ids = number.index_select(0, codes)
        self.context = context

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.context

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        piece = self.ids[i * self.context : (i + 1) * self.context + 1].long()
        return piece[:-1], piece[1:]


class CharGPT(nn.Module):
    """A small decoder-only Transformer: int64 [batch, n] in, logits [batch, n, vocab] out, n <= context."""

    def __init__(
        self, vocab: int, context: int, width: int = 64, layers: int = 2, heads: int = 4, dropout: float = 0.0
    ):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(context, width)
        block = {"dim_feedforward": 4 * width, "dropout": dropout, "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, **block) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.read_off(self.through(self.blocks, self.embed(ids)))

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 [batch, n] to [batch, n, width]."""
        return self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))

    def through(self, blocks: Iterable[nn.Module], hidden: torch.Tensor) -> torch.Tensor:
        """[batch, n, width] through some of the blocks, each position looking back only."""
        mask = nn.Transformer.generate_square_subsequent_mask(hidden.shape[1], device=hidden.device)
        for block in blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        return hidden

    def read_off(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, n, width] to logits [batch, n, vocab]."""
        return self.head(self.norm(hidden))


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy a character, in nats."""
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def rows_of(count: int, size: int, seed: int, share: tuple[int, int], seen: int) -> Iterator[list[int]]:
    """Which rows of `count` make up the next batches of `size` of one part of the ranks, for ever.

    share: (part, parts). All parts together take the rows in one order, new in every epoch, which the seed fixes and
    nothing else: however many ranks there are, and wherever a run was cut off, after `seen` rows the next one follows.
    """
    part, parts = share
    epoch, order = -1, []
    while True:
        batch = []
        for row in range(seen + part * size, seen + (part + 1) * size):
            if row // count != epoch:
                epoch = row // count
                order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
            batch.append(order[row % count])
        yield batch
        seen += parts * size


def batches(
    data: Dataset, size: int, seed: int, share: tuple[int, int], seen: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This rank's batches of `size` rows on its device, for ever; see `rows_of`."""
    # Only from pinned memory does a copy to the GPU run beside the computation. The text is in memory: no workers.
    pinned = device.type == "cuda"
    order = rows_of(len(data), size, seed, share, seen)
    # A generator of its own: from the common one the loader would take a number, and dropout another when resumed.
    for batch in DataLoader(data, batch_sampler=order, pin_memory=pinned, generator=torch.Generator()):
        yield tuple(each.to(device, non_blocking=pinned) for each in batch)


def read_text(path: str | None) -> str:
    if path is None:
        from labkit.text import shakespeare

        return shakespeare()
    with open(path, encoding="utf-8") as file:
        return file.read()


def options_of(program: str, about: str) -> argparse.ArgumentParser:
    """The options that all four programs have. A program adds its own and ends with `parsed`."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.set_defaults(program=program)
    add = parser.add_argument
    add("--steps", type=int, default=200, help="optimizer steps in all, those before a checkpoint included")
    add("--batch-size", type=int, default=16, help="rows of one micro-batch on one rank")
    add("--accumulate", type=int, default=1, help="micro-batches a step")
    add("--context", type=int, default=64, help="characters a row")
    add("--width", type=int, default=64)
    add("--layers", type=int, default=2)
    add("--heads", type=int, default=4)
    add("--lr", type=float, default=3e-3, help="learning rate; on resuming, the one given counts")
    add("--seed", type=int, default=0, help="of the weights, of the rows' order and of dropout")
    add("--every", type=int, default=50, help="steps between two reports, and checkpoints")
    add("--checkpoint", metavar="PATH", help="where the run is kept; if it is there, training resumes from it")
    add("--text", metavar="FILE", help="text to train on (default: Shakespeare)")
    add("--fp32", action="store_true", help="no bfloat16 on GPUs that can do it")
    add("--cpu", action="store_true", help="no GPU, on any rank")
    add("--timeout", type=float, default=600.0, help="seconds after which a rank gives up waiting for the others")
    return parser


def parsed(parser: argparse.ArgumentParser, given: list[str] | None) -> argparse.Namespace:
    """The options, or one sentence and the end."""
    options = parser.parse_args(given)
    counts = ("steps", "batch_size", "accumulate", "context", "width", "layers", "heads", "every")
    if low := [f"--{name.replace('_', '-')}" for name in counts if getattr(options, name) < 1]:
        parser.error(f"{' and '.join(low)} must be at least 1")
    if options.width % options.heads:
        parser.error(f"--width {options.width} can't be divided among --heads {options.heads}")
    if not 0 < options.lr < float("inf") or not 0 < options.timeout < float("inf"):
        parser.error("--lr and --timeout must be above 0")
    if options.seed < 0:
        parser.error("--seed must be at least 0")
    if not 0 <= getattr(options, "dropout", 0.0) < 1:
        parser.error("--dropout must be at least 0 and below 1")
    if options.text and not os.path.isfile(options.text):
        parser.error(f"--text {options.text}: there is no such file")
    return options


def prepare(options: argparse.Namespace) -> tuple[Windows, CharGPT]:
    """The text, and the model with the same first weights on every rank."""
    text = read_text(options.text)
    if len(text) <= options.context:
        refuse(f"The text is too short for one row of --context {options.context} characters.")
    data = Windows(text, options.context)
    torch.manual_seed(options.seed)
    dropout = getattr(options, "dropout", 0.0)
    return data, CharGPT(len(data.alphabet), options.context, options.width, options.layers, options.heads, dropout)


def step_if_finite(optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> bool:
    """Take the step, unless the gradient's norm, which is the same on every rank, is inf or NaN. Whether it did."""
    finite = bool(torch.isfinite(norm))  # waits for the GPU, once a step
    if finite:
        optimizer.step()
    return finite


def mixed_precision(place: Place) -> MixedPrecisionPolicy:
    """For FSDP2: computing in bfloat16, if that was agreed, while what each rank keeps and sums stays float32."""
    # Nothing here changes the logits in place, of which FSDP2 warns where a module's output is a view.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16 if place.bf16 else None, reduce_dtype=torch.float32)


def fit(
    options: argparse.Namespace,
    place: Place,
    data: Windows,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    checkpoint: WholeFile | SharedFolder,
    step_once: Callable,
    share: tuple[int, int],
) -> None:
    """Train until `--steps`, from the checkpoint if there is one; report, and keep the run, every `--every` steps.

    step_once(model, optimizer, stream, options, place) takes one step and gives (mean loss of this rank's rows, a 0-dim
    tensor; whether the step was taken). share: (part, parts), which part of each batch this rank reads.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    rows = options.batch_size * options.accumulate * share[1]
    if rows > len(data):
        refuse(f"The text has {len(data)} rows of {options.context} characters: too few for one step of {rows}.")
    run = resume(options, place, data, model, optimizer, checkpoint)
    start = run["step"]
    set_dropout(options.seed, run)
    if rank == 0:
        print(opening(options, place, start, share[1]), flush=True)
    stream = batches(data, options.batch_size, options.seed, share, run["rows"], place.device)
    began, skipped = time.perf_counter(), 0
    for step in range(start + 1, options.steps + 1):
        loss, taken = step_once(model, optimizer, stream, options, place)
        skipped = 0 if taken else skipped + 1
        if skipped == SKIPS:
            refuse(f"The gradient was inf or NaN in {SKIPS} steps in a row, up to step {step}: try a lower --lr.")
        if rank == 0 and skipped:
            print(f"step {step:5d}   skipped: the gradient is inf or NaN", flush=True)
        if step % options.every == 0 or step == options.steps:
            dist.all_reduce(loss)  # each rank has the loss of its own rows: show the mean
            if rank == 0:
                print(f"step {step:5d}   loss {loss.item() / world:.4f}", flush=True)
            run = {"step": step, "rows": run["rows"] + rows * (step - run["step"]), "rng": gathered(rng_state())}
            run |= {"settings": settings(options, data), "free": free(options, place)}
            checkpoint.save(model, optimizer, run)
    if rank == 0:
        speed = (options.steps - start) * rows * options.context / (time.perf_counter() - began)
        left = options.steps > start
        print(f"done: {speed:,.0f} characters a second" if left else f"nothing to do after step {start}", flush=True)


def resume(options, place, data, model, optimizer, checkpoint) -> dict:
    """Load the checkpoint, if there is one; give what is known of the run. See `fit`."""
    kept = checkpoint.read()
    if not kept:
        return {"step": 0, "rows": 0, "rng": []}
    if told := differences(kept["settings"], settings(options, data)):
        refuse(f"{options.checkpoint} holds another run: {told}. Give the old setting again, or another --checkpoint.")
    checkpoint.load(model, optimizer)
    for group in optimizer.param_groups:
        group["lr"] = options.lr  # the one given counts, not the one that the optimizer has kept
    if (told := differences(kept["free"], free(options, place))) and dist.get_rank() == 0:
        print(f"changed since the checkpoint: {told}", flush=True)
    return kept


def opening(options: argparse.Namespace, place: Place, start: int, parts: int) -> str:
    """Two lines that say on what and with which batch the run begins."""
    world = dist.get_world_size()
    where = f"on {torch.cuda.get_device_name()}" if place.device.type == "cuda" else "on CPU, no GPU is used"
    precision = ", bfloat16" if place.bf16 else ""
    who = f"{parts} ranks" if parts == world else f"{parts} x {world // parts} ranks that share rows"
    split = f"{who} x {options.accumulate} micro-batches x {options.batch_size} rows"
    return (
        f"{world} ranks {where} ({dist.get_backend()}{precision}), from step {start}\n"
        f"one step: {options.batch_size * options.accumulate * parts} rows = {split}"
    )


def settings(options: argparse.Namespace, data: Windows) -> dict:
    """What must not change on resuming: with another model, text or order of rows it would be another run."""
    names = ("context", "width", "layers", "heads", "seed")
    text = hashlib.sha256(data.ids.numpy().tobytes() + "".join(data.alphabet).encode()).hexdigest()[:12]
    return {"program": options.program, "text": text} | {name: getattr(options, name) for name in names}


def free(options: argparse.Namespace, place: Place) -> dict:
    """What may change on resuming. The rows go on where they stopped, however they are shared out."""
    names = [name for name in ("lr", "batch_size", "accumulate", "dropout") if hasattr(options, name)]
    return {name: getattr(options, name) for name in names} | {"ranks": dist.get_world_size(), "bf16": place.bf16}


def differences(old: dict, new: dict) -> str:
    """What has changed: "seed was 0 and is 7"."""
    changed = [name for name in new if old.get(name) != new[name]]
    return ", ".join(f"{name.replace('_', '-')} was {old.get(name)} and is {new[name]}" for name in changed)


def set_dropout(seed: int, run: dict) -> None:
    """Random numbers that go on where they were, if as many ranks go on, on what they were on; else new ones.

    They differ from rank to rank. As the seed alone has it, all ranks would drop out the same units.
    """
    rank, kept = dist.get_rank(), run["rng"]
    if len(kept) == dist.get_world_size() and kept[rank].keys() == rng_state().keys():
        torch.set_rng_state(kept[rank]["cpu"])
        if "cuda" in kept[rank]:
            torch.cuda.set_rng_state(kept[rank]["cuda"])
    else:
        mixed = np.random.SeedSequence([seed, run["rows"], rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]))


def rng_state() -> dict[str, torch.Tensor]:
    """Of this rank's generators: "cpu", and "cuda" where a GPU is in use."""
    gpu = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
    return {"cpu": torch.get_rng_state()} | gpu


def gathered(mine: dict) -> list[dict]:
    """What every rank hands in, in their order."""
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found
