#!/bin/bash
# torch 2.13.0: on a CPU FlopCounterMode counts 0 for attention, 0 for an LSTM and 0 for a whole encoder in eval().
#
# Guess: the counter sees each product of matrices, whatever way PyTorch computes it: scaled_dot_product_attention as
# much as the two products by hand, the encoder the same with and without gradients. (On a GPU its formulas for the
# attention kernels do that.)
# Seen: it knows the operators for which it has a formula, and says nothing of others. The CPU's attention kernel has
# none, nor has the fast path of nn.TransformerEncoderLayer (eval, no_grad), nor the LSTM's, nor a matrix times a
# vector. With dropout in the attention the count is right, since another way is taken.
#
# Where it matters: FLOPs and utilization on a laptop: of a language model at 64 places only the linear layers are
# counted, so the part that grows with the square of the length is the part that is missing. Use
# sdpa_kernel(SDPBackend.MATH) for the count.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode


def count(function, *inputs, **options):
    with FlopCounterMode(display=False) as counter:
        function(*inputs, **options)
    return counter.get_total_flops()


q = torch.randn(1, 2, 64, 16)
print("attention by hand", count(lambda: (q @ q.transpose(-1, -2)).softmax(-1) @ q), end=", ")
print("by the library", count(scaled_dot_product_attention, q, q, q), end=", ")
print("with dropout", count(scaled_dot_product_attention, q, q, q, dropout_p=0.1), end=", ")
with sdpa_kernel(SDPBackend.MATH):
    print("by MATH", count(scaled_dot_product_attention, q, q, q))
x = torch.randn(1, 10, 32)
layer, lstm = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), nn.LSTM(32, 32, batch_first=True)
print("encoder layer in training", count(layer, x), end=", ")
print("in eval()", count(layer.eval(), x), end=", ")
with torch.no_grad():
    print("and no_grad", count(layer, x))
print("LSTM", count(lstm, x), "matrix times matrix", count(torch.mm, x[0].T, x[0]), end=", ")
print("matrix times vector", count(torch.mv, x[0], x[0, 0]))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="attention by hand 524288, by the library 0, with dropout 524288, by MATH 524288
encoder layer in training 176640, in eval() 163840, and no_grad 0
LSTM 0 matrix times matrix 20480, matrix times vector 0"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
