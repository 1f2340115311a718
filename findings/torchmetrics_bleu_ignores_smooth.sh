#!/bin/bash
# torchmetrics 1.9.0: smooth=True changes nothing where BLEU is 0 for want of a four-gram, which is what it is there
# for.
#
# Guess: sacre_bleu_score gives what sacrebleu 2.6.0 gives; and if its default lacks the smoothing, then smooth=True
# gives sacrebleu's smoothing by adding 1 (smooth_method="add-k", smooth_value=1).
# Seen: 0 by default and 0 with smooth=True, where sacrebleu says 19.3 and, adding 1, 32.5. Whether an order has no
# match is asked first, and then 0 is returned; the smoothing comes after that. With a four-gram in common smooth=True
# works.
#
# Where it matters: single sentences and short outputs, whose BLEU is mostly 0 then, with the switch on.
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
from torchmetrics.functional.text import sacre_bleu_score

reference = "the cat sat on the mat"
for text in ("the cat is on a mat", "the cat sat on a mat"):
    theirs = [100 * sacre_bleu_score([text], [[reference]], smooth=smooth).item() for smooth in (False, True)]
    known = ({}, {"smooth_method": "add-k", "smooth_value": 1})
    right = [sacrebleu.corpus_bleu([text], [[reference]], **how).score for how in known]
    print(f"{text}: {theirs[0]:.1f} {theirs[1]:.1f} sacrebleu: {right[0]:.1f} {right[1]:.1f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="the cat is on a mat: 0.0 0.0 sacrebleu: 19.3 32.5
the cat sat on a mat: 53.7 63.9 sacrebleu: 53.7 63.9"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
