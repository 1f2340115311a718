#!/bin/bash
# x-transformers 2.31.10: a decoder with shift_tokens=1 generates another text than its own logits say; with
# cache_kv=False it doesn't.
#
# Guess: a cache saves time and changes nothing: greedy generate() appends the token that the model itself, called on
# the text so far, holds most likely. Options with which this can't be are refused or go without the cache.
# Seen: shift_tokens gives each place half of the features of the place before. With the cache, which is the default,
# the layers get the new token only, whose neighbor is then zeros, so nearly all tokens after the first are other ones.
# Rotary, ALiBi, memory keys, grouped heads and thirty other options were right.
#
# Where it matters: the README offers it for faster convergence of character models. The loss is good, the samples are
# bad, and one looks for the fault in the training.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check x-transformers==2.31.10 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

for options in ({}, {"rotary_pos_emb": True}, {"shift_tokens": 1}):
    torch.manual_seed(0)
    layers = Decoder(dim=32, depth=2, heads=4, attn_dim_head=8, **options)
    model = TransformerWrapper(num_tokens=50, max_seq_len=32, attn_layers=layers).eval()
    start = torch.randint(0, 50, (20, 4))
    for cached in (True, False):
        made = AutoregressiveWrapper(model).generate(start, 16, temperature=0.0, cache_kv=cached)
        with torch.no_grad():
            own = model(torch.cat([start, made], 1))[:, 3:-1].argmax(-1)  # the likeliest after each text so far
        right = (own == made).float().mean(0)
        alike = "all" if right.eq(1).all() else "less than half" if right[1:].mean() < 0.5 else "most"
        print(options, f"cache_kv={cached}: first token right {bool(right[0] == 1)}, of the others", alike)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="{} cache_kv=True: first token right True, of the others all
{} cache_kv=False: first token right True, of the others all
{'rotary_pos_emb': True} cache_kv=True: first token right True, of the others all
{'rotary_pos_emb': True} cache_kv=False: first token right True, of the others all
{'shift_tokens': 1} cache_kv=True: first token right True, of the others less than half
{'shift_tokens': 1} cache_kv=False: first token right True, of the others all"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
