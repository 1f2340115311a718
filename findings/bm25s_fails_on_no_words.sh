#!/bin/bash
# bm25s 0.3.16: get_scores() of a query without words ends in an IndexError, retrieve() gives zeros for the same query.
#
# Guess: a query of stop words only ("to be or not to be") has no token left, and get_scores() gives 0 for every document,
# as it does for a query of unknown words, and as retrieve() does for the same tokens.
# Seen: retrieve() gives k documents with score 0.0, get_scores(["zebra"]) zeros, get_scores([]) IndexError: list index out
# of range (the kind of the first token is asked for).
#
# Where it matters: who fuses rankings takes get_scores(), and one question without a word stops the run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check bm25s==0.3.16 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import bm25s

texts = ["the cat sat on the mat", "a plan for the day", "to be or not to be, that is the question"]
index = bm25s.BM25(method="lucene")
index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
query = bm25s.tokenize("to be or not to be", show_progress=False, return_ids=False)
print("tokens:", query[0])
print("retrieve:", index.retrieve(query, k=2, show_progress=False).scores.tolist()[0])
print("get_scores, unknown word:", index.get_scores(["zebra"]).tolist())
try:
    print("get_scores:", index.get_scores(query[0]).tolist())
except IndexError as error:
    print("get_scores: IndexError:", error)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="tokens: []
retrieve: [0.0, 0.0]
get_scores, unknown word: [0.0, 0.0, 0.0]
get_scores: IndexError: list index out of range"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
