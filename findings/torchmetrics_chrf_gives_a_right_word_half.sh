#!/bin/bash
# torchmetrics 1.9.0: chrF of an answer that equals its reference is .5 for "yes"; sacrebleu 2.6.0 gives 100.
#
# Guess: CHRFScore wraps chrF as sacrebleu defines it, so a text that equals its reference scores 1, however short.
# Seen: "yes" .5, "42" .33, "Paris" .83, 我爱你们 .67 (n_word_order=0; the default, chrF++, is as low). The mean is taken
# over all six orders of characters, and an order that a short text can't have (four-grams of three letters) counts 0.
# sacrebleu leaves such orders out. From six letters and two words on the two agree here.
#
# Where it matters: short answers and Chinese: a table of torchmetrics' chrF isn't comparable with a published one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 \
    sacrebleu==2.6.0
cat > "$folder/ask.py" <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
import sacrebleu
from torchmetrics.functional.text import chrf_score

for text in ("yes", "42", "Paris", "我爱你们", "the cat"):
    theirs = [chrf_score([text], [[text]], n_word_order=words).item() for words in (0, 2)]
    right = [sacrebleu.corpus_chrf([text], [[text]], word_order=words).score / 100 for words in (0, 2)]
    print(text, *(f"{score:.2f}" for score in theirs), "sacrebleu:", *(f"{score:.2f}" for score in right))
PYTHON
PYTHONUTF8=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="yes 0.50 0.50 sacrebleu: 1.00 1.00
42 0.33 0.38 sacrebleu: 1.00 1.00
Paris 0.83 0.75 sacrebleu: 1.00 1.00
我爱你们 0.67 0.62 sacrebleu: 1.00 1.00
the cat 1.00 1.00 sacrebleu: 1.00 1.00"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
