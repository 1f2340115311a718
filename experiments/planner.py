"""A planner made of four functions: seconds and bytes of a training step, for published runs and in a search.

The functions are those that a learner writes in chapter 08_scaling_out. Claims lean on nobody's work, so `reference`
takes them from the exercises.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from labkit.scaling import published_runs, seconds_of

# The run that sets the one free number, the share of its peak that a GPU reaches in products. It is not scored.
CALIBRATION = "Megatron 1.7B"


@dataclass(frozen=True)
class Planner:
    """Four functions, see the exercises of the same names, and the share of the peak that products reach."""

    training_flops: Callable
    memory_per_gpu: Callable
    bytes_sent: Callable
    step_time: Callable
    efficiency: float = 0.0

    def step(self, model: dict, layout: dict, seq: int, machine: dict) -> dict[str, float]:
        """Seconds of one step, by kind. An activation that is kept is taken to be written and read once a pass."""
        flops, moved = self.work(model, layout, seq)
        sent = self.bytes_sent(model, layout, seq)
        return self.step_time(flops, moved, sent, layout, machine | {"efficiency": self.efficiency})

    def work(self, model: dict, layout: dict, seq: int) -> tuple[float, float]:
        """Operations of one GPU in a step, and bytes that it moves between its memory and its cores."""
        cut = layout["tp"] * layout["cp"] * layout["pp"]
        sequences = layout["micro_batch"] * layout["micro_batches"]
        flops = self.training_flops(model, seq, layout["recompute"]) * sequences / cut
        alone = layout | {"pp": model["layers"], "micro_batches": 1, "recompute": False}
        kept = self.memory_per_gpu(model, alone, seq)["activations"] * layout["micro_batches"]
        passes = 4 if layout["recompute"] else 3
        return flops, 2 * passes * kept * model["layers"] / layout["pp"]

    def memory(self, model: dict, layout: dict, seq: int) -> float:
        """Bytes on the fullest GPU."""
        return sum(self.memory_per_gpu(model, layout, seq).values())

    def calibrated(self) -> Planner:
        """The same planner, with the efficiency at which the run CALIBRATION comes out exactly."""
        run = next(run for run in published_runs() if run["name"] == CALIBRATION)
        whole = Planner(self.training_flops, self.memory_per_gpu, self.bytes_sent, self.step_time, 1.0)
        told = whole.step(run["model"], run["layout"], run["seq"], run["machine"])
        products = self.work(run["model"], run["layout"], run["seq"])[0] / run["machine"]["peak"]
        left = seconds_of(run, self.training_flops) - (told["total"] - products)
        return Planner(self.training_flops, self.memory_per_gpu, self.bytes_sent, self.step_time, products / left)

    def held_against(self) -> list[dict[str, Any]]:
        """Every published run with `seconds` as published, `planned` by kind, and `error`, planned / published - 1."""
        rows = []
        for run in published_runs():
            planned = self.step(run["model"], run["layout"], run["seq"], run["machine"])
            seconds = seconds_of(run, self.training_flops)
            error = planned["total"] / seconds - 1
            rows.append({**run, "seconds": seconds, "planned": planned, "error": error})
        return rows


@functools.cache
def reference() -> Planner:
    """The planner of functions that the exercises know to be right, calibrated."""
    from autograde.exercises import find

    names = ("training_flops", "memory_per_gpu", "bytes_sent", "step_time")
    return Planner(*(find(name).alternatives[0] for name in names)).calibrated()


def layouts(
    gpus: int,
    node: int,
    model: dict,
    batch: int,
    kinds: tuple[str, ...] = ("tp", "pp"),
    stages: tuple[int, ...] = (1, 3),
    overlap: bool = True,
) -> Iterator[dict]:
    """Every layout of a cluster that comes out even, with and without recomputation, with the given stages of ZeRO.

    `kinds` says which of tp and pp may be more than 1; data parallelism has what is left.
    """
    for tp in _divisors(node) if "tp" in kinds else [1]:
        for pp in _divisors(model["layers"]) if "pp" in kinds else [1]:
            dp = gpus // (tp * pp)
            if dp * tp * pp != gpus or batch % dp or model["heads"] % tp or model["kv_heads"] % tp:
                continue
            for micro, recompute, zero in itertools.product(_divisors(batch // dp)[:4], (False, True), stages):
                degrees = {"tp": tp, "pp": pp, "dp": dp, "cp": 1, "ep": 1, "zero": zero, "micro_batch": micro}
                rest = {"micro_batches": batch // dp // micro, "chunks": 1, "recompute": recompute}
                yield degrees | rest | {"flash": True, "overlap": overlap}


def fastest(
    planner: Planner, run: dict, gpus: int, batch: int, kinds: tuple[str, ...] = ("tp", "pp"), **options: Any
) -> tuple[dict, float] | None:
    """The layout of least time of those that fit into the GPU's memory, and its seconds; None where none fits.

    options: `stages` and `overlap` of `layouts`.
    """
    model, machine = run["model"], run["machine"]
    fitting = [
        (planner.step(model, layout, run["seq"], machine)["total"], number, layout)
        for number, layout in enumerate(layouts(gpus, machine["node"], model, batch, kinds, **options))
        if planner.memory(model, layout, run["seq"]) <= machine["bytes"]
    ]
    if not fitting:
        return None
    seconds, _, layout = min(fitting)
    return layout, seconds


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]
