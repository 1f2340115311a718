#!/bin/bash
# x-transformers 2.31.10: a Decoder with orthog_residual=True sees the tokens to come: the logits of a place change with
# what follows it.
#
# Guess: a residual connection works at each place for itself, so a Decoder stays causal whichever is chosen: other
# tokens from the ninth on change nothing at the first eight.
# Seen: the update is made orthogonal to the residual stream over the whole text at once, not at each place (the two are
# flattened first): how much is taken off at the first place depends on the last one. attn_orthog_projected_values does
# the same. Orthogonal to each place's own vector would be causal. gate_residual and the plain one are.
#
# Where it matters: the training loss counts what generation doesn't have; and a text's logits change with the padding
# and with each token that is written, so a cache of keys and values is wrong, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check x-transformers==2.31.10 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from x_transformers import Decoder, TransformerWrapper

for name in ("none", "gate_residual", "orthog_residual", "attn_orthog_projected_values"):
    torch.manual_seed(0)
    layers = Decoder(dim=32, depth=2, heads=4, attn_dim_head=8, **({} if name == "none" else {name: True}))
    model = TransformerWrapper(num_tokens=50, max_seq_len=16, attn_layers=layers).eval()
    text = torch.randint(0, 50, (4, 16))
    other = torch.cat([text[:, :8], (text[:, 8:] + 7) % 50], 1)
    with torch.no_grad():
        moved = (model(text) - model(other))[:, :8].abs().amax((0, 2))
    print(f"{name}: the first eight places' logits stay within .0001 {bool(moved.max() < 1e-4)}, first moves", end=" ")
    print(bool(moved[0] > 1e-4))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="none: the first eight places' logits stay within .0001 True, first moves False
gate_residual: the first eight places' logits stay within .0001 True, first moves False
orthog_residual: the first eight places' logits stay within .0001 False, first moves True
attn_orthog_projected_values: the first eight places' logits stay within .0001 False, first moves True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
