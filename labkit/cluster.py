"""How the ranks of a training program come together and part again, and what outlives them: the checkpoint.

torchrun starts the processes and tells each its rank in environment variables. Used by train_ddp, train_fsdp, train_tp
and train_pp; docs/cluster.md has the commands for one machine, for several, and for SLURM.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

BF16 = (8, 0)  # compute capability from which on a card multiplies in bfloat16; older ones only pretend to


@dataclass(frozen=True)
class Place:
    """Where a rank computes, and whether in bfloat16: the same answer on every rank."""

    device: torch.device
    bf16: bool = False

    def autocast(self) -> torch.autocast:
        """Inside, matrix products run in bfloat16, if that was agreed."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def refuse(sentence: str, rank: int | None = None) -> NoReturn:
    """End every rank. All come to the same conclusion; one says why."""
    if (dist.get_rank() if rank is None else rank) == 0:
        sys.exit(sentence)
    time.sleep(1.0)  # torchrun ends all as soon as one has ended: that should be the one that speaks
    sys.exit(1)


def main(program: str, arguments: Callable, train: Callable[[argparse.Namespace, Place], None]) -> None:
    """Run a program under torchrun: come together, train, part."""
    options = arguments()
    if "RANK" not in os.environ:
        sys.exit(not_started(program))
    try:
        train(options, join(options))
    except BaseException as error:
        fail(error)
    backend = dist.get_backend()
    dist.destroy_process_group()
    sys.stdout.flush()
    if backend == "gloo":
        # gloo's threads outlive the group, and one that lets go of its last tensor while Python shuts down aborts the
        # process (pytorch/pytorch#179291). All is written: leave without that.
        os._exit(0)


def not_started(program: str) -> str:
    return (
        "Start this with torchrun, which starts the processes and tells each its rank: "
        f"torchrun --standalone --nproc-per-node 2 -m labkit.{program}"
    )


def fail(error: BaseException) -> NoReturn:
    """Say what happened, and die at once, so that torchrun sees it and ends the others.

    No teardown: to destroy a group of NCCL's is a collective, too, and the others stand in another one.
    """
    told = isinstance(error, SystemExit)
    if not told:
        traceback.print_exception(error)
    elif isinstance(error.code, str):
        print(error.code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.code if told and isinstance(error.code, int) else 1)


def join(options: argparse.Namespace) -> Place:
    """Bring all ranks into one group. Which backend is agreed on first: one rank with another waits for ever."""
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if here == world and sys.platform in ("linux", "darwin"):
        # One machine: gloo need not look up its name in a network that may not be there.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    limit = datetime.timedelta(seconds=options.timeout)
    store, *_ = next(dist.rendezvous("env://", timeout=limit))
    usable = torch.cuda.is_available() and dist.is_nccl_available() and not options.cpu
    gpus = torch.cuda.device_count() if usable else 0
    bf16 = local < gpus and not options.fp32 and torch.cuda.get_device_capability(local) >= BF16
    mine = {"host": platform.node(), "ranks": here, "gpus": gpus, "bf16": bf16}
    store, agreed = meet(store, rank, world, mine, options.timeout)
    if "refused" in agreed:
        refuse(agreed["refused"], rank)
    device = torch.device("cuda", local) if agreed["gpu"] else torch.device("cpu")
    if agreed["gpu"]:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if agreed["gpu"] else "gloo",
        store=store,
        rank=rank,
        world_size=world,
        timeout=limit,
        device_id=device if agreed["gpu"] else None,
    )
    return Place(device, agreed["bf16"])


def meet(store: dist.Store, rank: int, world: int, mine: dict, limit: float) -> tuple[dist.Store, dict[str, Any]]:
    """Hear what every rank says of its machine; give a store of this start alone, and what was agreed on (see `agree`).

    When torchrun starts the ranks again, its store still holds what those before wrote, and whoever reads that connects
    to the dead (pytorch/pytorch#135712, #167288). So each rank says a new word, until rank 0 has repeated it.
    """
    word, end = uuid.uuid4().hex, time.monotonic() + limit
    store.set(f"labkit/{rank}", json.dumps(mine | {"word": word}))
    while time.monotonic() < end:
        if rank == 0:
            told = [json.loads(store.get(f"labkit/{each}")) for each in range(world)]
            store.set("labkit/heard", json.dumps([each["word"] for each in told]))
        heard = json.loads(store.get("labkit/heard"))
        if len(heard) == world and heard[rank] == word:
            fresh = dist.PrefixStore(heard[0], store)
            fresh.set(f"here/{rank}", "")
            if rank > 0:
                return fresh, json.loads(fresh.get("agreed"))
            if fresh.check([f"here/{each}" for each in range(world)]):
                fresh.set("agreed", json.dumps(agree(told)))
                return fresh, agree(told)
        time.sleep(0.02)
    sys.exit(f"Rank {rank} has waited {limit:g} s for the others: are all {world} ranks started?")


def agree(told: list[dict]) -> dict[str, Any]:
    """From what each rank says of its machine: GPUs for all or for nobody, bfloat16 likewise. Or a sentence."""
    short = [each for each in told if each["gpus"] < each["ranks"]]
    if short and any(each["gpus"] for each in told):
        first = short[0]
        few = f"{first['host']} has {first['gpus']} GPUs for its {first['ranks']} ranks"
        return {"refused": f"{few}: start one rank a GPU everywhere (--nproc-per-node), or give --cpu to all."}
    return {"gpu": not short, "bf16": not short and all(each["bf16"] for each in told)}


def write(path: str, state: dict) -> None:
    """Write all of it or nothing: whoever is cut off in the middle leaves the old file as it was."""
    partial = f"{path}.partial"
    with open(partial, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # else a machine that goes down may know the name and not the content
    rename(partial, path)


def rename(partial: str, path: str) -> None:
    """Give what is written its name, and write down the name as well."""
    os.replace(partial, path)
    if os.name == "posix":
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def read(path: str) -> dict:
    """A file that `write` has written; else a sentence and the end. For rank 0."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not {"step", "rows", "rng", "settings", "free"} <= set(state):
            raise ValueError("it was written by another program")
    except Exception as error:
        refuse(f"{path} can't be resumed from ({error}): give another --checkpoint.")
    return state


def broadcast(value: Any) -> Any:
    """What rank 0 has."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class WholeFile:
    """A checkpoint in one file, for a model that every rank has whole. Only rank 0 reads and writes it, so that
    machines which don't see the file take part, and all ranks start at the same step."""

    OPTIONS = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)

    def __init__(self, path: str | None):
        self.path = path
        self.state = {}

    def read(self) -> dict | None:
        """What is known of the run that it holds, on every rank; None where there is none."""
        if self.path and dist.get_rank() == 0 and os.path.exists(self.path):
            self.state = read(self.path)
        return broadcast({name: self.state[name] for name in self.state if name not in ("model", "optimizer")}) or None

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give model and optimizer what was kept, tensor by tensor from rank 0."""
        # Two calls: for set_state_dict() no weights, as on all ranks but 0, would mean that they aren't to be loaded.
        set_model_state_dict(model, self.state.pop("model", {}), options=WholeFile.OPTIONS)
        set_optimizer_state_dict(model, optimizer, self.state.pop("optimizer", {}), options=WholeFile.OPTIONS)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict) -> None:
        """Keep all of it, with `run`: numbers, texts and tensors."""
        if self.path and dist.get_rank() == 0:
            weights, moments = get_state_dict(model, optimizer)
            write(self.path, run | {"model": weights, "optimizer": moments})


class SharedFolder:
    """A checkpoint in a folder that all machines see: every rank writes its own part of model and optimizer, and
    reads what it needs, also where there were more ranks, or fewer."""

    OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)  # by names of parameters, not by their numbers

    def __init__(self, path: str | None):
        self.path = Path(path) if path else None
        self.kept: Path | None = None

    def read(self) -> dict | None:
        """What is known of the run that it holds, on every rank; None where there is none."""
        run = None
        if self.path and dist.get_rank() == 0:
            if self.path.exists() and not self.path.is_dir():
                refuse(f"{self.path} is a file: this program keeps its checkpoint in a folder, so give another name.")
            # Zeros in front: the last in the alphabet is the last written. What isn't whole has another ending.
            self.kept = max(self.path.glob("step-" + "[0-9]" * 8), default=None)
            run = read(str(self.kept / "run.pt")) if self.kept else None
        self.kept, run = broadcast((self.kept, run))
        return run

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give model and optimizer what was kept."""
        state = self._state(model, optimizer)
        dcp.load(state, checkpoint_id=self.kept)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=SharedFolder.OPTIONS,
        )

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict) -> None:
        """Keep all of it, with `run`: numbers, texts and tensors. The checkpoint before goes when this one is whole."""
        if not self.path:
            return
        whole = self.path / f"step-{run['step']:08d}"
        partial = self.path / f"{whole.name}.partial"
        first = dist.get_rank() == 0
        if first:
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was cut off in the middle
            partial.mkdir(parents=True)
        dist.barrier()
        dcp.save(self._state(model, optimizer), checkpoint_id=partial)
        if first:
            write(str(partial / "run.pt"), run)
            rename(str(partial), str(whole))
            if self.kept and self.kept != whole:
                shutil.rmtree(self.kept, ignore_errors=True)
        self.kept = whole

    @staticmethod
    def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        weights, moments = get_state_dict(model, optimizer, options=SharedFolder.OPTIONS)
        return {"model": weights, "optimizer": moments}
