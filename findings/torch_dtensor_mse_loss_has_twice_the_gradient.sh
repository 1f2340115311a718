#!/bin/bash
# torch 2.13.0: F.mse_loss of DTensors that are cut over two ranks has twice the gradient; with uneven parts the loss is
# wrong, too.
#
# Guess: F.mse_loss on DTensors has the loss and the gradient of the whole tensor, as (a - b).square().mean() on the
# same DTensors has.
# Seen: each rank takes the mean of its part, and the loss is the mean of these means (Partial(avg)); on the way back
# each rank's part gets the whole 1, not its half of it. So the loss of four numbers is right and its gradient is
# multiplied by the number of ranks. Of five numbers, three and two, the loss is 31.33 for 26, and the ranks' numbers
# weigh .67 and 1 for .4 each. By hand all is right.
#
# Where it matters: regression heads, value losses and distillation of features under tensor or sequence parallelism:
# the learning rate of this part grows with the number of GPUs, and in the last batch the smaller part counts more. The
# printed loss shows nothing.
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
from torch.nn.functional import mse_loss

warnings.filterwarnings("ignore")


def work(rank, meeting, lines):
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0])
    for number, count in enumerate((4, 5)):
        told = []
        for loss in (mse_loss, lambda a, b: (a - b).square().mean()):
            cut = distribute_tensor(x[:count], mesh, [Shard(0)]).requires_grad_()
            value = loss(cut, distribute_tensor(torch.zeros(count), mesh, [Shard(0)]))
            value.backward()
            slopes = " ".join(f"{slope:.2f}" for slope in (cut.grad.full_tensor() / x[:count]).tolist())
            told.append(f"{value.full_tensor().item():.2f} with slopes {slopes}")
        if rank == 0:
            lines.put((number, f"{count} numbers: mse_loss {told[0]}, by hand {told[1]}"))
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
wanted="4 numbers: mse_loss 7.50 with slopes 1.00 1.00 1.00 1.00, by hand 7.50 with slopes 0.50 0.50 0.50 0.50
5 numbers: mse_loss 31.33 with slopes 0.67 0.67 0.67 1.00 1.00, by hand 26.00 with slopes 0.40 0.40 0.40 0.40 0.40"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
