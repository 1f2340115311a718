#!/bin/bash
# rouge 1.0.1: "no no no no" against "no" has ROUGE-1 and ROUGE-L of 1.00; rouge-score 0.1.2 gives .40.
#
# Guess: ROUGE-N clips: a word counts as often as it stands in both texts, so three of the four words are surplus and
# the precision is 1/4, as in the paper and as with rouge-score.
# Seen: the n-grams of each text are gathered in a set (exclusive=True, the default, which the README doesn't name), so
# each counts once: "the the the the cat" is a perfect summary of "the cat", whichever of the two is the reference.
# ROUGE-L divides by the count of different words, too. Rouge(exclusive=False) gives the paper's ROUGE-1.
#
# Where it matters: a small model that repeats itself, the commonest fault of greedy decoding, loses nothing in ROUGE-1
# and ROUGE-L. And the numbers can't be put beside those of a paper, which used rouge-score or the Perl script.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check rouge==1.0.1 rouge-score==0.1.2
cat > "$folder/ask.py" <<'PYTHON'
from rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

for said, right in [("no no no no", "no"), ("the the the the cat", "the cat"), ("the cat", "the cat cat cat cat")]:
    mine = [Rouge(exclusive=once).get_scores(said, right)[0] for once in (True, False)]
    told = [f"{scores[kind]['f']:.2f}" for scores in mine for kind in ("rouge-1", "rouge-l")]
    other = RougeScorer(["rouge1", "rougeL"]).score(right, said)
    told += [f"{score.fmeasure:.2f}" for score in other.values()]
    print(f"{said!r} for {right!r}: rouge 1/L", *told[:2], "exclusive=False", *told[2:4], "rouge-score", *told[4:])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="'no no no no' for 'no': rouge 1/L 1.00 1.00 exclusive=False 0.40 0.40 rouge-score 0.40 0.40
'the the the the cat' for 'the cat': rouge 1/L 1.00 1.00 exclusive=False 0.57 0.57 rouge-score 0.57 0.57
'the cat' for 'the cat cat cat cat': rouge 1/L 1.00 1.00 exclusive=False 0.57 0.57 rouge-score 0.57 0.57"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
