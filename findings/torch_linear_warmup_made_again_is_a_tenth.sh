#!/bin/bash
# torch 2.13.0: LinearLR made a second time on the same optimizer begins at a tenth of a tenth; LambdaLR doesn't.
#
# Guess: a scheduler that is made anew starts at the learning rate that the optimizer was given (it is kept, as
# initial_lr), so a notebook's cell that makes it can be run again; a warm-up from a tenth begins at .1 each time,
# whether it is written with LinearLR or with LambdaLR.
# Seen: LambdaLR begins at .1 each time. LinearLR multiplies what it finds: .1, .01, .001, and after its five steps
# the rate is 1, .1 and .01. So does ConstantLR.
#
# Where it matters: a second run of a cell, a second phase with the same optimizer. The run trains at a tenth of the
# rate, and nothing is said. (For an optimizer whose state is loaded before, the documentation warns.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR

makers = {
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda step: min(1, 0.1 + 0.18 * step)),
    "CosineAnnealingLR": lambda optimizer: CosineAnnealingLR(optimizer, 100),
    "LinearLR": lambda optimizer: LinearLR(optimizer, 0.1, 1, total_iters=5),
    "ConstantLR": lambda optimizer: ConstantLR(optimizer, 0.1, total_iters=5),
    "SequentialLR": lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, 0.1, 1, total_iters=5), LambdaLR(optimizer, lambda step: 1)], [6]
    ),
}
for name, make in makers.items():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    rates = []
    for again in range(3):
        scheduler = make(optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    for step in range(5):
        optimizer.step()
        scheduler.step()
    last = optimizer.param_groups[0]["lr"]
    print(f"{name}: begins at", *(f"{rate:.3g}" for rate in rates), f"and is {last:.2g} after five steps")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="LambdaLR: begins at 0.1 0.1 0.1 and is 1 after five steps
CosineAnnealingLR: begins at 1 1 1 and is 0.99 after five steps
LinearLR: begins at 0.1 0.01 0.001 and is 0.01 after five steps
ConstantLR: begins at 0.1 0.01 0.001 and is 0.01 after five steps
SequentialLR: begins at 0.1 0.1 0.1 and is 1 after five steps"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
