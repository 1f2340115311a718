#!/bin/bash
# torchinfo 1.8.0: a language model has as many mult-adds for 16 tokens as for 64, and most of them are its embedding's.
#
# Guess: total_mult_adds of a batch of 64 tokens is four times that of 16, or more, for the attention; looking up a row
# of the embedding is 0.
# Seen: a layer's weights are counted once for each text of the batch, not for each token, unless it is a convolution or
# recurrent. The embedding counts all its rows, 50,000 x 768, for a single token. nn.MultiheadAttention is 0. Tied
# weights are two. The documentation speaks of mult-adds and shows convolutional networks.
#
# Where it matters: the number under the summary is taken for the cost of a forward pass. It is too small by the length
# of the text, and doesn't tell a short prompt from a long one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torchinfo==1.8.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch import nn
from torchinfo import summary


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.inner = nn.Embedding(1000, 32), nn.Linear(32, 32, bias=False)
        self.head = nn.Linear(32, 1000, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.inner(self.embedding(ids)))


for n in (16, 64):
    told = summary(Model(), input_data=torch.zeros(1, n, dtype=torch.long), verbose=0)
    print(f"{n} tokens: {told.total_mult_adds:,} told, {n * (32 * 32 + 32 * 1000):,} by hand")
print("weights", told.total_params, "told", sum(p.numel() for p in Model().parameters()), "by parameters()")
embedding = summary(nn.Embedding(50_000, 768), input_data=torch.zeros(1, 1, dtype=torch.long), verbose=0)
print(f"one token looked up: {embedding.total_mult_adds:,}", end="; ")
attention = nn.MultiheadAttention(32, 2, batch_first=True)
print("attention:", summary(attention, input_data=[torch.zeros(1, 16, 32)] * 3, verbose=0).total_mult_adds)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="16 tokens: 65,024 told, 528,384 by hand
64 tokens: 65,024 told, 2,113,536 by hand
weights 65024 told 33024 by parameters()
one token looked up: 38,400,000; attention: 0"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
