#!/bin/bash
# torch 2.13.0: cumsum(-1) of a DTensor that is cut along its last dimension begins anew on the second rank; cumsum(1)
# doesn't.
#
# Guess: an operation on a DTensor gives what it gives on the whole tensor, however it is cut ("as if it's a
# single-device program", says its documentation), or raises; -1 and 1 are the same dimension of a matrix.
# Seen: for cumsum and logcumsumexp a negative dimension isn't recognized as the one that is cut: each rank sums its own
# half, and full_tensor() puts the halves together: 1, 2, 3, 1, 2, 3. With the dimension given as 1 the tensor is
# gathered first, and the sum is right. On one rank nothing shows.
#
# Where it matters: positions and masks from cumsum(-1), top-p sampling over logits that are cut along the vocabulary,
# and log-survival in losses: -1 is how one writes it. Write the dimension as a positive number, or gather first.
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
    ones = distribute_tensor(torch.ones(2, 6), mesh, [Shard(1)])
    for number, (name, dim) in enumerate([("cumsum", 1), ("cumsum", -1), ("logcumsumexp", 1), ("logcumsumexp", -1)]):
        got = getattr(ones, name)(dim).full_tensor()
        wanted = getattr(torch.ones(2, 6), name)(dim)
        if rank == 0:
            numbers = " ".join(f"{x:.2f}" for x in got[0].tolist())
            lines.put((number, f"{name}({dim}): {numbers} as the whole: {torch.allclose(got, wanted)}"))
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
wanted="cumsum(1): 1.00 2.00 3.00 4.00 5.00 6.00 as the whole: True
cumsum(-1): 1.00 2.00 3.00 1.00 2.00 3.00 as the whole: False
logcumsumexp(1): 1.00 1.69 2.10 2.39 2.61 2.79 as the whole: True
logcumsumexp(-1): 1.00 1.69 2.10 1.00 1.69 2.10 as the whole: False"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
