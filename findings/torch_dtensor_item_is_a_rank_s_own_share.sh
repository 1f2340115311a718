#!/bin/bash
# torch 2.13.0: sum().item() of a DTensor that is cut over two ranks gives each rank another number, neither the sum.
#
# Guess: item() is the value of the tensor that one has: sum(), norm() and max() of a DTensor have the shape () and
# print as one tensor, so their item() is the sum of all, on every rank the same.
# Seen: they aren't added up yet (Partial), and item() and float() take the rank's own share without adding. A
# comparison of the DTensor itself, and full_tensor().item(), are right. Meant so, say the developers in issue 144054;
# DTensor's documentation doesn't.
#
# Where it matters: logging a loss or a norm of gradients under FSDP2 or tensor parallelism, and `if norm.item() >
# limit`: the ranks take different branches.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import os
import tempfile
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

warnings.filterwarnings("ignore")


def work(rank, meeting, lines):
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    x = torch.tensor([1.0, 2.0, 3.0, 10.0])
    cut = distribute_tensor(x, mesh, [Shard(0)])
    for number, name in enumerate(["sum", "mean", "norm", "max"]):
        value = getattr(cut, name)()
        own = f"item() {value.item():.2f}, float() {float(value):.2f}, full_tensor() {value.full_tensor().item():.2f}"
        above = f"item() > 5 {value.item() > 5}, itself > 5 {bool(value > 5)}"
        lines.put((2 * number + rank, f"{name} on rank {rank}: {own}, {above}"))
    dist.barrier()
    os._exit(0)  # at the usual exit gloo's threads sometimes abort


if __name__ == "__main__":
    lines = mp.get_context("spawn").SimpleQueue()
    mp.spawn(work, args=(os.path.join(tempfile.mkdtemp(), "meeting"), lines), nprocs=2)
    said = []
    while not lines.empty():
        said.append(lines.get())
    print("\n".join(text for number, text in sorted(said)))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="sum on rank 0: item() 3.00, float() 3.00, full_tensor() 16.00, item() > 5 False, itself > 5 True
sum on rank 1: item() 13.00, float() 13.00, full_tensor() 16.00, item() > 5 True, itself > 5 True
mean on rank 0: item() 1.50, float() 1.50, full_tensor() 4.00, item() > 5 False, itself > 5 False
mean on rank 1: item() 6.50, float() 6.50, full_tensor() 4.00, item() > 5 True, itself > 5 False
norm on rank 0: item() 2.24, float() 2.24, full_tensor() 10.68, item() > 5 False, itself > 5 True
norm on rank 1: item() 10.44, float() 10.44, full_tensor() 10.68, item() > 5 True, itself > 5 True
max on rank 0: item() 2.00, float() 2.00, full_tensor() 10.00, item() > 5 False, itself > 5 True
max on rank 1: item() 10.00, float() 10.00, full_tensor() 10.00, item() > 5 True, itself > 5 True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
