#!/bin/bash
# torch 2.13.0: in bfloat16 on a CPU the gradient of a token that stands 4,096 times in the batch is that of 256.
#
# Guess: an embedding's gradient is a sum over the places of its token, and sums of bfloat16 are computed in float32
# and rounded once, as sum(), matmul and scatter_add do: 4,096 gradients of 1 give 4096, 64,000 give 64000 or near.
# Seen: 256, from 256 places on; in float16 2048. The gradients are added one by one in the weights' own type, and 256
# + 1 is 256 there. index_add has it, too; the same sum as one-hot rows times gradients is right.
#
# Where it matters: frequent tokens of a model trained in pure bfloat16: spaces, "the", the padding before it is
# masked. Their gradient is too small by a factor that grows with the batch. Under autocast with float32 weights it is
# right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch import nn

for name in ("float32", "bfloat16", "float16"):
    for count in (256, 4096):
        dtype, ids = getattr(torch, name), torch.zeros(count, dtype=torch.long)
        table = nn.Embedding(2, 1, dtype=dtype)
        table(ids).backward(torch.ones(count, 1, dtype=dtype))
        weight = table.weight.detach().clone().requires_grad_()
        (nn.functional.one_hot(ids, 2).to(dtype) @ weight).backward(torch.ones(count, 1, dtype=dtype))
        ones, zero = torch.ones(count, dtype=dtype), torch.zeros(1, dtype=dtype)
        print(
            f"{name}, {count} ones: embedding {table.weight.grad[0].item():.0f}, one-hot {weight.grad[0].item():.0f},",
            f"index_add {zero.index_add(0, ids, ones).item():.0f},",
            f"scatter_add {zero.scatter_add(0, ids, ones).item():.0f}, sum {ones.sum().item():.0f}",
        )
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="float32, 256 ones: embedding 256, one-hot 256, index_add 256, scatter_add 256, sum 256
float32, 4096 ones: embedding 4096, one-hot 4096, index_add 4096, scatter_add 4096, sum 4096
bfloat16, 256 ones: embedding 256, one-hot 256, index_add 256, scatter_add 256, sum 256
bfloat16, 4096 ones: embedding 256, one-hot 4096, index_add 256, scatter_add 4096, sum 4096
float16, 256 ones: embedding 256, one-hot 256, index_add 256, scatter_add 256, sum 256
float16, 4096 ones: embedding 2048, one-hot 4096, index_add 2048, scatter_add 4096, sum 4096"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
