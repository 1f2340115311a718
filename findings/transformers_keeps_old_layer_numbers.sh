#!/bin/bash
# transformers 5.23.0: a llama from which a layer was taken reads as before and writes no more, once its config says so.
#
# Guess: model.model.layers = ModuleList(the rest), and config.num_hidden_layers lowered to their number, as saving needs
# it: then generate() writes the same text with a cache as without, whichever layer went.
# Seen: with the last layer gone, yes. With any other one gone, IndexError from the cache: every layer keeps the number
# that it was built with (self_attn.layer_idx), and the cache has as many places as the config says. As long as the
# config keeps the old number it works. Numbering the layers anew, or saving and loading, mends it.
#
# Where it matters: depth pruning. Perplexity is measured in one pass without a cache, where nothing shows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.tensor([[5, 17, 33, 8, 60]])


def writes(gone, lowered, renumbered):
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, initializer_range=0.3)).eval()
    model.model.layers = nn.ModuleList(layer for i, layer in enumerate(model.model.layers) if i != gone)
    if lowered:
        model.config.num_hidden_layers = 5
    if renumbered:
        for i, layer in enumerate(model.model.layers):
            layer.self_attn.layer_idx = i
    try:
        cached, plain = (model.generate(IDS, max_new_tokens=12, do_sample=False, use_cache=use) for use in (True, False))
    except IndexError:
        return "IndexError"
    return "the same" if torch.equal(cached, plain) else "another text"


told = [writes(gone, *how) for how in ((False, False), (True, False), (True, True)) for gone in (0, 2, 5)]
print(told)
same = ["the same"] * 3
print("as seen" if told == [*same, "IndexError", "IndexError", "the same", *same] else "it has changed")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
grep -q "as seen" "$folder/told"
