"""D02.10: does DeepSpeed make data parallelism cheaper: with the same losses, does each ZeRO stage hold less?"""

from __future__ import annotations

import gc
import os
import time

import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from labkit.experiment import Experiment
from labkit.modes import Listener

RANKS, STEPS, ROWS, CONTEXT = 2, 6, 8, 32
NEAR, LESS = 1e-3, 0.95  # nats to one process's losses, and of stage 0's bytes. Stated before the run.

experiment = Experiment(
    claim="D02.10",
    question="With the same losses as one process, how many bytes does a rank hold at each ZeRO stage of DeepSpeed?",
    arms={"one process": {"stage": None}} | {f"stage {stage}": {"stage": stage} for stage in range(4)},
    seeds=range(3),
    shows="stage 3",
    shows_not="stage 0",
    live=("one process", 0),
    within={"losses": 1e-3, "optimizer": 0.0, "held": 2e4},
)


@experiment.measure
def measure(seed, stage):
    """Losses of a small GPT's steps, and what a rank holds: optimizer states; all states, before the last step.

    One process takes all rows of a step; with a stage, DeepSpeed's engine on each of RANKS ranks takes its share.
    DeepSpeed 0.19.8 is needed for the stages: `pip install deepspeed==0.19.8` (it compiles nothing for this).
    """
    from labkit import launch

    found = launch(_trained, seed, stage, ranks=1 if stage is None else RANKS, limit=120)
    held = {name: max(each[name] for each in found) for name in ("optimizer", "held")}
    losses = torch.tensor([each["losses"] for each in found]).mean(0)
    return {"losses": losses, **held}


def _trained(seed, stage):
    from labkit import shakespeare
    from labkit.train_ddp import CharGPT, Windows, loss_of

    text = Windows(shakespeare()[:100_000], CONTEXT)
    scale = _Scale()
    with scale:
        torch.manual_seed(seed)
        model = CharGPT(len(text.alphabet), CONTEXT)
        backward, step, state = _plain(model, loss_of) if stage is None else _engine(model, loss_of, stage)
    rank, world = dist.get_rank(), dist.get_world_size()
    order = torch.randperm(len(text), generator=torch.Generator().manual_seed(seed)).tolist()
    losses = []
    for i in range(STEPS):
        rows = [text[k] for k in order[i * ROWS : (i + 1) * ROWS][rank::world]]
        batch = [torch.stack(part) for part in zip(*rows, strict=True)]
        with scale:
            losses.append(backward(*batch))
            held = scale.held()
            step()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state()}
    return {"losses": losses, "optimizer": sum(storages.values()), "held": held}


def _plain(model, loss_of):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)

    def backward(ids, targets):
        optimizer.zero_grad()
        loss = loss_of(model(ids), targets)
        loss.backward()
        return loss.item()

    return backward, optimizer.step, lambda: _moments(optimizer)


def _engine(model, loss_of, stage):
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK=str(dist.get_rank()))
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiling it takes a minute, and gloo will do
    deepspeed.init_distributed(dist_backend="gloo")
    adam = {"lr": 1e-3, "weight_decay": 0.01, "torch_adam": True, "adam_w_mode": True}
    # By default stage 3 keeps parameters of fewer than 100,000 numbers whole: all of them, in a model so small.
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0, "reduce_bucket_size": 20_000}
    config = {"train_micro_batch_size_per_gpu": ROWS // RANKS, "zero_optimization": zero}
    config |= {"optimizer": {"type": "AdamW", "params": adam}, "wall_clock_breakdown": False}
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)

    def backward(ids, targets):
        loss = loss_of(engine(ids), targets)
        engine.backward(loss)
        return loss.item()

    return backward, engine.step, lambda: _moments(getattr(engine.optimizer, "optimizer", engine.optimizer))


def _moments(optimizer):
    return [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor) and t.dim()]


class _Scale(Listener):
    """Knows every storage that is made inside, and weighs those that are still there."""

    def __init__(self):
        super().__init__()
        self.known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and t.device.type == "cpu":
                self.known.setdefault(t.untyped_storage()._cdata, StorageWeakRef(t.untyped_storage()))
        return out

    def held(self):
        gc.collect()
        time.sleep(0.05)  # gloo's threads let go of a tensor a moment after the collective is done
        alive = [ref for ref in self.known.values() if not ref.expired()]
        return sum(torch.UntypedStorage._new_with_weak_ptr(ref.cdata).nbytes() for ref in alive)


@experiment.conclude
def conclude(found):
    """Correct if every stage trains as one process does and 1 to 3 hold less than stage 0; wrong if none does."""
    alone = found.each("one process", "losses")

    def off(stage):
        return max(abs(a - b) for one, other in zip(alone, found.each(f"stage {stage}", "losses"), strict=True)
                   for a, b in zip(one, other, strict=True))  # fmt: skip

    def share(stage, number, of="stage 0"):
        pairs = zip(found.each(f"stage {stage}", number), found.each(of, number), strict=True)
        return [mine / whole for mine, whole in pairs]  # bytes don't depend on the seed: no interval

    saves = [max(share(stage, "held")) < LESS for stage in range(4)]
    same = all(off(stage) < NEAR for stage in range(4))
    word = "correct" if same and all(saves[1:]) else "imprecise" if any(saves[1:]) else "wrong"
    return {
        "verdict": word,
        "controls": {"shows": saves[3], "shows_not": min(share(0, "held", of="one process")) >= LESS},
        "numbers": {"apart": f"{max(off(stage) for stage in range(4)):.0e}"}
        | {f"optimizer_{stage}": f"{100 * max(share(stage, 'optimizer')):.0f} %" for stage in range(4)}
        | {f"held_{stage}": f"{100 * max(share(stage, 'held')):.0f} %" for stage in range(4)},
    }
