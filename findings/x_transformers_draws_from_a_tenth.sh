#!/bin/bash
# x-transformers 2.31.10: generate(prompt, n, temperature=1.) draws from the most likely tenth of the vocabulary only.
#
# Guess: temperature 1 and nothing else said is sampling from the model's own distribution: where all 100 tokens are
# equally likely, 10,000 draws hold all 100 of them. A filter is something one asks for.
# Seen: ten of the hundred come up. filter_logits_fn has the default top_k, and its default is a tenth of the tokens;
# the README calls generate() without either. filter_logits_fn=lambda logits: logits leaves the distribution as it is.
#
# Where it matters: what is drawn looks better than the model is. Sampled perplexity, diversity, calibration, samples
# for reinforcement learning (whose log-probabilities are those of the whole distribution) are of another model; and
# with a small vocabulary, bytes or amino acids, three of 26 letters are all there is to choose from.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check x-transformers==2.31.10 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

for size in (26, 100):
    layers = Decoder(dim=8, depth=1, heads=1, attn_dim_head=8)
    model = TransformerWrapper(num_tokens=size, max_seq_len=4, attn_layers=layers)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()  # so all tokens are equally likely
    wrapper = AutoregressiveWrapper(model)
    start = torch.zeros(10_000, 1, dtype=torch.long)
    for options in ({}, {"filter_logits_fn": lambda logits: logits}):
        drawn = wrapper.generate(start, 1, temperature=1.0, **options)
        told = "as it is" if not options else "without a filter"
        print(f"{size} equal tokens, generate {told}: {drawn.unique().numel()} different ones in 10,000")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="26 equal tokens, generate as it is: 3 different ones in 10,000
26 equal tokens, generate without a filter: 26 different ones in 10,000
100 equal tokens, generate as it is: 10 different ones in 10,000
100 equal tokens, generate without a filter: 100 different ones in 10,000"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
