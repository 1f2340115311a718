#!/bin/bash
# peft 0.21.2: a fresh DoRA adapter on a layer with a row of zeros gives NaN; plain LoRA doesn't.
#
# Guess: a fresh adapter changes nothing, whatever the weights are: its B is zero, so a row of zeros stays a row of
# zeros with the magnitude 0.
# Seen: DoRA divides by each row's norm, and 0 / 0 is NaN: the output of that row, the gradients of all of the adapter's
# matrices, and the merged layer. use_dora=False gives the base layer. With init_lora_weights=False (B is random) it is
# finite.
#
# Where it matters: fine-tuning after structured pruning, vocabulary rows that were added as zeros, heads that were
# taken out by setting them to zero. One step, and every adapted weight of the layer is NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    peft==0.21.2 transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

warnings.filterwarnings("ignore")
for dora in (False, True):
    torch.manual_seed(0)
    base, x = nn.Sequential(nn.Linear(8, 6, bias=False)), torch.randn(4, 8)
    base[0].weight.data[2] = 0
    wanted = base(x).detach()
    model = get_peft_model(base, LoraConfig(target_modules=["0"], r=2, use_dora=dora))
    out = model(x)
    out.sum().backward()
    bad = [name.split(".")[3] for name, p in model.named_parameters() if p.grad is not None and p.grad.isnan().any()]
    print(f"DoRA {dora}: output as before {torch.allclose(out, wanted)}, of the row {out[0, 2].item()}", end=", ")
    print("gradients with NaN", bad)
    print("    merged finite", bool(model.merge_and_unload()[0].weight.isfinite().all()))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="DoRA False: output as before True, of the row 0.0, gradients with NaN []
    merged finite True
DoRA True: output as before False, of the row nan, gradients with NaN ['lora_A', 'lora_B', 'lora_magnitude_vector']
    merged finite False"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
