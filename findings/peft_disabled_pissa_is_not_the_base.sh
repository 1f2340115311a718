#!/bin/bash
# peft 0.21.2: with init_lora_weights="pissa" or "olora", disable_adapter() doesn't give the base model back.
#
# Guess: inside `with model.disable_adapter():` the model computes what the base model computed before
# get_peft_model(), as it does for plain LoRA, "orthogonal" and "gaussian"; so it can be the reference model of DPO,
# GRPO or a KL penalty.
# Seen: both initializations take the adapter's first product out of the base weights, so without the adapter a part
# of the model is missing: outputs of size 1 move by about 1. Nothing is said; only save_pretrained()'s documentation
# says in passing that these adapters change the base model.
#
# Where it matters: trl 1.16 computes its reference this way for an adapter that it makes itself. The first DPO loss
# is then not log 2, and the policy is held to a broken model. Keep the base model as ref_model, or precompute its
# log-probabilities before get_peft_model().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check peft==0.21.2 transformers==5.23.0 torch==2.13.0 \
    numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model

for name in ("gaussian", "orthogonal", "pissa", "olora"):
    torch.manual_seed(0)
    base, x = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False)), torch.randn(8, 64)
    before = base(x).detach()
    model = get_peft_model(base, LoraConfig(r=8, target_modules=["0"], init_lora_weights=name))
    with torch.no_grad(), model.disable_adapter():
        off = (model(x) - before).norm() / before.norm()
    on = (model(x) - before).norm() / before.norm()
    for switch, moved in (("on", on), ("off", off)):
        told = "as the base model" if moved < 1e-5 else "moved by more than a tenth" if moved > 0.1 else "moved"
        print(f"{name}, adapter {switch}: {told}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="gaussian, adapter on: as the base model
gaussian, adapter off: as the base model
orthogonal, adapter on: as the base model
orthogonal, adapter off: as the base model
pissa, adapter on: as the base model
pissa, adapter off: moved by more than a tenth
olora, adapter on: as the base model
olora, adapter off: moved by more than a tenth"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
