#!/bin/bash
# torch 2.13.0: an encoder in eval() gives zeros at padded places under no_grad, and other numbers there without it.
#
# Guess: eval() fixes what nn.TransformerEncoder computes; whether gradients are kept can't change its output.
# Seen: under no_grad (or with frozen weights) and with a padding mask the fast path packs the batch and puts zeros
# where the padding was. With gradients the padded places hold what the layers made of them. At the other places the
# two are equal, but the mean over all places isn't.
#
# Where it matters: an embedding by mean pooling, checked with gradients and served without. Pool with the mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
texts, padded = torch.randn(2, 4, 8), torch.tensor([[False] * 4, [False, False, True, True]])
kept = encoder(texts, src_key_padding_mask=padded).detach()
with torch.no_grad():
    plain = encoder(texts, src_key_padding_mask=padded)
print("padded places are 0:", not kept[padded].any(), not plain[padded].any())
print("the others are equal:", torch.allclose(kept[~padded], plain[~padded], atol=1e-5))
print("the mean is equal:", torch.allclose(kept.mean(1), plain.mean(1), atol=0.1))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/told"
wanted="padded places are 0: False True
the others are equal: True
the mean is equal: False"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
