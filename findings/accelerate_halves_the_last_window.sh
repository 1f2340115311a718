#!/bin/bash
# accelerate 1.15.0: with 6 batches and gradient_accumulation_steps=4 the last step's gradient is half of the others'.
#
# Guess: accumulate() steps at the end of the data as well (it does), with the mean of the batches that were left: it
# knows that it is the end, and that there were two.
# Seen: each loss is divided by 4 wherever it stands, so the last two batches make a step of 2/4. And backward() outside
# of accumulate() is divided, too. Where there are three batches and four to accumulate, every step is three quarters.
# The documentation says that the gradients are scaled, and that the last batches are stepped, not both together.
#
# Where it matters: small data and large windows: each epoch ends with a weak step for plain SGD, while AdamW, which
# doesn't mind the size, takes the noise of fewer examples as a whole step. Let the number of batches be a multiple, or
# scale the last loss.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

for batches in (8, 6, 3):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model, optimizer, data = accelerator.prepare(model, optimizer, DataLoader(torch.ones(batches, 1), batch_size=1))
    told = []
    for x in data:
        with accelerator.accumulate(model):
            accelerator.backward(model(x).sum())
            if accelerator.sync_gradients:
                told.append(model.weight.grad.item())
            optimizer.step()
            optimizer.zero_grad()
    print(f"{batches} batches, each with the gradient 1: the steps' gradients", told)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="8 batches, each with the gradient 1: the steps' gradients [1.0, 1.0]
6 batches, each with the gradient 1: the steps' gradients [1.0, 0.5]
3 batches, each with the gradient 1: the steps' gradients [0.75]"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
