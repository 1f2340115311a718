#!/bin/bash
# torch 2.13.0: the PowerSGD hook turns a gradient of zeros into NaN at rank 1 and 2, with its default settings.
#
# Guess: a layer that gets no signal in a step (all its units are off) has a gradient of zeros, and keeps it: the hook
# says that it recovers "from NaNs to 0s" where a column has no length.
# Seen: NaN at rank 1 and 2, in this step and, through the residual, in every later one. Gram-Schmidt divides by the norm
# and waits for a ZeroDivisionError, which tensors don't raise. At rank 3 QR is used, and zeros stay zeros; so they do
# with orthogonalization_epsilon=1e-8.
#
# Where it matters: mixtures of experts, frozen phases, dead ReLUs. One step is enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo", store=dist.FileStore(sys.argv[1] + "/store", 1), rank=0, world_size=1)


def after(rank, epsilon):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    ddp = DistributedDataParallel(net)
    options = {"start_powerSGD_iter": 2, "orthogonalization_epsilon": epsilon}
    ddp.register_comm_hook(PowerSGDState(None, rank, **options), powerSGD_hook)
    for step in range(4):
        nn.init.constant_(net[0].bias, -100.0 if step == 2 else 0.0)  # in step 2 all units are off
        ddp.zero_grad()
        ddp(torch.randn(8, 32)).square().mean().backward()
    return "NaN" if net[0].weight.grad.isnan().any() else "numbers"


for rank, epsilon in ((1, 0), (2, 0), (3, 0), (1, 1e-8)):
    print(f"rank {rank}, epsilon {epsilon}: {after(rank, epsilon)}")
dist.destroy_process_group()
PYTHON
GLOO_SOCKET_IFNAME=lo "$folder/venv/bin/python" "$folder/ask.py" "$folder" | tee "$folder/told"
seen='rank 1, epsilon 0: NaN
rank 2, epsilon 0: NaN
rank 3, epsilon 0: numbers
rank 1, epsilon 1e-08: numbers'
if [ "$(cat "$folder/told")" = "$seen" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
