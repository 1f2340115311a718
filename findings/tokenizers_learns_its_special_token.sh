#!/bin/bash
# tokenizers 0.23.3: BpeTrainer(special_tokens=["<|endoftext|>"]) learns "endoftext" as a piece from the text's
# separators.
#
# Guess: a special token is cut out of the text before anything is counted, in training as in encode(): so the
# vocabulary is the same, whether the documents are handed over one by one or joined by "<|endoftext|>".
# Seen: in training the token is ordinary text. "endoftext" and a step towards it become pieces, which hardly any text
# can produce afterwards, since encode() takes the whole token first.
#
# Where it matters: a file of documents joined by their separator is how most small corpora come (TinyStories). The
# more documents, the more entries of the vocabulary are dead, and their embeddings are never trained. Cut before
# training.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3 huggingface-hub==2.4.0
cat > "$folder/ask.py" <<'PYTHON'
import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

random.seed(0)
words = "once upon a time there was little girl who saw the big dog and ran home to her mother very happy".split()
documents = [" ".join(random.choices(words, k=20)).capitalize() + "." for _ in range(500)]
end = "<|endoftext|>"


def trained(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


apart, joined = trained(documents), trained([end.join(documents)])
for name, tokenizer in (("one by one", apart), ("joined", joined)):
    pieces = {piece for piece in tokenizer.get_vocab() if piece in end and len(piece) > 3}
    used = pieces & {*tokenizer.encode(end.join(documents)).tokens}
    print(f"{name}: pieces of it: {sorted(pieces)}, used afterwards: {sorted(used)}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="one by one: pieces of it: ['<|endoftext|>'], used afterwards: ['<|endoftext|>']
joined: pieces of it: ['<|endoftext|>', 'endoft', 'endoftext'], used afterwards: ['<|endoftext|>']"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
