#!/bin/bash
# torch 2.13.0: a tensor-parallel plan with two ColwiseParallel layers on one input sums that input's gradient twice.
#
# Guess: parallelize_module(mlp, mesh, {"gate": ColwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()})
# on the MLP of LLaMA sends one all-reduce forwards and one backwards, as Megatron-LM counts: the gradients that gate and
# up send back to x are added on each rank before they are summed over the ranks.
# Seen: one forwards, two backwards. Each ColwiseParallel turns the plain x into a DTensor for itself, and so sums its own
# gradient. The numbers are right. With PrepareModuleInput on the whole MLP x becomes a DTensor once: one and one.
#
# Where it matters: q, k and v, gate and up. Five messages backwards in a layer where two are enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import os
import sys
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, PrepareModuleInput, RowwiseParallel, parallelize_module


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def ask(rank, folder):
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", store=dist.FileStore(os.path.join(folder, "store"), 2), rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for prepared in (False, True):
        torch.manual_seed(0)
        mlp, x = MLP(), torch.randn(3, 8, requires_grad=True)
        mlp(x).square().sum().backward()
        right, x.grad = x.grad, None
        plan = {"gate": ColwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
        mlp = parallelize_module(mlp, mesh, plan)
        if prepared:
            same = (Replicate(),)
            mlp = parallelize_module(mlp, mesh, PrepareModuleInput(input_layouts=same, desired_input_layouts=same))
        with CommDebugMode() as forwards:
            y = mlp(x)
        with CommDebugMode() as backwards:
            y.square().sum().backward()
        counts = [mode.get_total_counts() for mode in (forwards, backwards)]
        if rank == 0:
            print("prepared:" if prepared else "plan alone:", *counts, torch.allclose(x.grad, right, atol=1e-5), flush=True)
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    mp.spawn(ask, (sys.argv[1],), nprocs=2)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" | tee "$folder/told"
if [ "$(cat "$folder/told")" = "$(printf 'plan alone: 1 2 True\nprepared: 1 1 True')" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
