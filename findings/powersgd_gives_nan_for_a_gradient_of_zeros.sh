#!/bin/bash
# torch 2.13.0: the PowerSGD hook turns a gradient of zeros into NaN at rank 1 and 2, with its default settings; with the
# epsilon that prevents it the gradient stays zero for good.
#
# Guess: a layer that gets no signal in a step (all its units are off) has a gradient of zeros, and keeps it: the hook
# says that it recovers "from NaNs to 0s" where a column has no length.
# Seen: NaN at rank 1 and 2, in this step and, through the residual, in every later one. Gram-Schmidt divides by the norm
# and waits for a ZeroDivisionError, which tensors don't raise. At rank 3 QR is used: zeros in this step, numbers in the
# next.
#
# Guess: with orthogonalization_epsilon=1e-8 as well.
# Seen: zeros in every later step. P = M Q is zero, and so is the new Q = Mᵀ P, which the next step starts from: all that
# the layer learns goes into the residual and never comes out. With warm_start=False Q is drawn anew, and it does.
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


def after(rank, epsilon, warm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    ddp = DistributedDataParallel(net)
    options = {"start_powerSGD_iter": 2, "orthogonalization_epsilon": epsilon, "warm_start": warm}
    ddp.register_comm_hook(PowerSGDState(None, rank, **options), powerSGD_hook)
    for step in range(6):
        nn.init.constant_(net[0].bias, -100.0 if step == 2 else 0.0)  # in step 2 all units are off
        ddp.zero_grad()
        ddp(torch.randn(8, 32)).square().mean().backward()
    gradient = net[0].weight.grad
    return "NaN" if gradient.isnan().any() else "numbers" if gradient.any() else "zeros"


for rank, epsilon, warm in ((1, 0, True), (2, 0, True), (3, 0, True), (1, 1e-8, True), (2, 1e-8, True), (1, 1e-8, False)):
    print(f"rank {rank}, epsilon {epsilon}, warm {warm}: {after(rank, epsilon, warm)}")
dist.destroy_process_group()
PYTHON
GLOO_SOCKET_IFNAME=lo "$folder/venv/bin/python" "$folder/ask.py" "$folder" | tee "$folder/told"
seen='rank 1, epsilon 0, warm True: NaN
rank 2, epsilon 0, warm True: NaN
rank 3, epsilon 0, warm True: numbers
rank 1, epsilon 1e-08, warm True: zeros
rank 2, epsilon 1e-08, warm True: zeros
rank 1, epsilon 1e-08, warm False: numbers'
if [ "$(cat "$folder/told")" = "$seen" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
