#!/bin/bash
# torch 2.13.0: TransformerEncoder(x, is_causal=True) raises in training, and under eval() and no_grad sees the
# future.
#
# Guess: without a mask, is_causal=True either masks the future ("If specified, applies a causal mask as ``mask``",
# says the documentation) or is refused, and eval() and no_grad change nothing in this.
# Seen: with gradients it is refused ("Need attn_mask if specifying the is_causal hint"). Under eval() and no_grad the
# fast path takes the missing mask for no mask: the outputs at the earlier places depend on the last token. No word is
# said.
#
# Where it matters: a GPT made of TransformerEncoderLayer that is loaded and evaluated only. Its perplexity is that of
# a model which sees the answer. Give mask=nn.Transformer.generate_square_subsequent_mask(n) as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True)
encoder = nn.TransformerEncoder(layer, 2).eval()
x = torch.randn(1, 5, 16)
other = x.clone()
other[:, -1] += 1
causal = nn.Transformer.generate_square_subsequent_mask(5)
for grad in (True, False):
    for mask in (causal, None):
        with torch.set_grad_enabled(grad):
            try:
                change = (encoder(x, mask, is_causal=True) - encoder(other, mask, is_causal=True))[:, :-1].abs().max()
                told = "the earlier places don't change" if change < 1e-6 else "the earlier places change"
            except RuntimeError as error:
                told = str(error).split(".")[0]
        print(f"{'with' if grad else 'without'} gradients, {'a' if mask is not None else 'no'} mask: {told}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="with gradients, a mask: the earlier places don't change
with gradients, no mask: Need attn_mask if specifying the is_causal hint
without gradients, a mask: the earlier places don't change
without gradients, no mask: the earlier places change"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
