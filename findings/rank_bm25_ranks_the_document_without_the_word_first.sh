#!/bin/bash
# rank-bm25 0.2.2: BM25Okapi gives 0 to the documents with the query's word, or less, and ranks one without it first.
#
# Guess: a document that holds the query's only word scores above one that doesn't, in a collection of whatever size.
# Seen: a word's weight is log((N - n + .5) / (n + .5)): 0 where half of the documents hold it, negative where more do.
# A negative weight is replaced by a quarter of the average weight, and in a small collection of similar texts this
# average is negative itself. Of four documents "red wine" is asked for, and the one about bread comes first; of two
# documents every word that is in one of them scores 0. BM25Plus gets both right.
#
# Where it matters: the first example of retrieval has two to five documents, and so have the sections of one page. The
# README doesn't mention it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check rank-bm25==0.2.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
from rank_bm25 import BM25Okapi, BM25Plus

four = ["red wine", "red wine", "red wine", "bread"]
two = ["the cat sleeps", "a dog barks"]
for name, kind in {"Okapi": BM25Okapi, "Plus": BM25Plus}.items():
    index = kind([text.split() for text in four])
    print(name, "first for red wine:", index.get_top_n(["red", "wine"], four, 1)[0], end="; ")
    scores = kind([text.split() for text in two]).get_scores(["cat"])
    print("cat above dog:", bool(scores[0] > scores[1]), end="; ")
    print("scores", index.get_scores(["red", "wine"]).round(2).tolist(), scores.round(2).tolist())
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="Okapi first for red wine: bread; cat above dog: False; scores [-0.13, -0.13, -0.13, 0.0] [0.0, 0.0]
Plus first for red wine: red wine; cat above dog: True; scores [1.98, 1.98, 1.98, 1.02] [2.2, 1.1]"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
