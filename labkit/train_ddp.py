"""Train a small character model on several processes: the script that chapter 03_data_parallel/03_ddp ends on.

    torchrun --standalone --nproc-per-node 2 -m labkit.train_ddp --steps 100

The same command runs on CPUs (gloo) and, where every process of a machine has a GPU, on GPUs (NCCL, bfloat16). On
several machines give torchrun --nnodes and --rdzv-endpoint. Copy the file and change it: beside torch it needs only a
text, `--text FILE`, or labkit's Shakespeare.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

NOT_STARTED = (
    "Start this with torchrun, which starts the processes and tells each its rank: "
    "torchrun --standalone --nproc-per-node 2 -m labkit.train_ddp"
)


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

    def __init__(self, vocab: int, context: int, width: int = 64, layers: int = 2, heads: int = 4):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(context, width)
        block = {"dim_feedforward": 4 * width, "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, **block) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        n = ids.shape[1]
        hidden = self.tokens(ids) + self.positions(torch.arange(n, device=ids.device))
        mask = nn.Transformer.generate_square_subsequent_mask(n, device=ids.device)
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        return self.head(self.norm(hidden))


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy a character, in nats."""
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def batches(data: Dataset, size: int, seed: int, skip: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This rank's batches of `size` rows for ever, in a new order every epoch, leaving out the first `skip`."""
    sampler = DistributedSampler(data, seed=seed, drop_last=True)
    loader = DataLoader(data, batch_size=size, sampler=sampler, drop_last=True)
    if not len(loader):
        sys.exit(f"The text has {len(data)} windows: too few for one batch of {size} on every rank.")
    epoch, skip = divmod(skip, len(loader))
    while True:
        sampler.set_epoch(epoch)  # without this line every epoch has the same order
        yield from islice(loader, skip, None)
        epoch, skip = epoch + 1, 0


def save(path: str, state: dict) -> None:
    """Write all of it or nothing: whoever is cut off in the middle leaves the old checkpoint as it was."""
    partial = f"{path}.partial"
    torch.save(state, partial)
    os.replace(partial, path)


def resume(path: str | None, shape: dict, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint, if there is one, on every rank; return the step it was written after, else 0.

    Only rank 0 reads the file, so that machines without it take part, and all ranks start at the same step.
    """
    loaded = [None]
    if path and dist.get_rank() == 0 and os.path.exists(path):
        loaded = [torch.load(path, map_location="cpu", weights_only=True)]
    dist.broadcast_object_list(loaded, src=0)
    if loaded[0] is None:
        return 0
    state = loaded[0]
    if state["shape"] != shape:
        told = f"{path} holds a model of another size or alphabet: give its options again, or another --checkpoint."
        sys.exit(told if dist.get_rank() == 0 else 1)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def train(options: argparse.Namespace, device: torch.device) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(options.seed)
    data = Windows(read_text(options.text), options.context)
    model = CharGPT(len(data.alphabet), options.context, options.width, options.layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    shape = {"alphabet": data.alphabet, "context": options.context, "width": options.width, "layers": options.layers}
    start = resume(options.checkpoint, shape, model, optimizer)
    ddp = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    rows = options.batch_size * options.accumulate * world
    if rank == 0:
        where = f"on {torch.cuda.get_device_name()}" if device.type == "cuda" else "on CPU, no GPU is used"
        print(f"{world} ranks {where} ({dist.get_backend()}), from step {start}", flush=True)
        parts = f"{world} ranks x {options.accumulate} micro-batches x {options.batch_size} rows"
        print(f"one step: {rows} rows = {parts}", flush=True)
    stream = batches(data, options.batch_size, options.seed, skip=start * options.accumulate)
    began = time.perf_counter()
    for step in range(start + 1, options.steps + 1):
        loss = step_once(ddp, optimizer, stream, options, device)
        if step % options.every == 0 or step == options.steps:
            dist.all_reduce(loss)  # each rank has the loss of its own rows: show the mean
            if rank == 0:
                print(f"step {step:5d}   loss {loss.item() / world:.4f}", flush=True)
                if options.checkpoint:
                    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                    save(options.checkpoint, parts | {"step": step, "shape": shape})
    if rank == 0 and options.steps > start:
        speed = (options.steps - start) * rows * options.context / (time.perf_counter() - began)
        print(f"done: {speed:,.0f} characters a second", flush=True)


def step_once(ddp, optimizer, stream, options: argparse.Namespace, device: torch.device) -> torch.Tensor:
    """One optimizer step over `accumulate` micro-batches. Returns this rank's mean loss."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device)
    bf16 = torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda" and not options.fp32)
    for micro in range(options.accumulate):
        ids, targets = (part.to(device, non_blocking=True) for part in next(stream))
        last = micro == options.accumulate - 1
        with contextlib.nullcontext() if last else ddp.no_sync():  # the ranks talk once a step
            with bf16:
                loss = loss_of(ddp(ids), targets) / options.accumulate
            loss.backward()
        total += loss.detach()
    nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)  # after the average, so that all ranks clip alike
    optimizer.step()
    return total


def read_text(path: str | None) -> str:
    if path is None:
        from labkit import shakespeare

        return shakespeare()
    with open(path, encoding="utf-8") as file:
        return file.read()


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_ddp", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--steps", type=int, default=200, help="optimizer steps in all, those before a checkpoint included")
    add("--batch-size", type=int, default=16, help="rows of one micro-batch on one rank")
    add("--accumulate", type=int, default=1, help="micro-batches a step")
    add("--context", type=int, default=64, help="characters a row")
    add("--width", type=int, default=64)
    add("--layers", type=int, default=2)
    add("--lr", type=float, default=3e-3)
    add("--seed", type=int, default=0)
    add("--every", type=int, default=50, help="steps between two reports, and checkpoints")
    add("--checkpoint", metavar="FILE", help="written by rank 0; where it exists, training resumes from it")
    add("--text", metavar="FILE", help="text to train on (default: Shakespeare)")
    add("--fp32", action="store_true", help="no bfloat16 on GPUs")
    options = parser.parse_args(given)
    if min(options.steps, options.batch_size, options.accumulate, options.context, options.every) < 1:
        parser.error("--steps, --batch-size, --accumulate, --context and --every must be at least 1")
    if options.text and not os.path.isfile(options.text):
        parser.error(f"--text {options.text}: there is no such file")
    return options


def main() -> None:
    options = arguments()
    if "RANK" not in os.environ:
        sys.exit(NOT_STARTED)
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if here == int(os.environ["WORLD_SIZE"]) and sys.platform in ("linux", "darwin"):
        # One machine: gloo need not look up its name in a network that may not be there.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    gpu = torch.cuda.is_available() and torch.cuda.device_count() >= here
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    try:
        train(options, device)
    finally:
        dist.destroy_process_group()
    # gloo's threads outlive the group, and one that lets go of its last tensor while Python shuts down aborts the
    # process (pytorch/pytorch#179291). All is written: leave without that.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
