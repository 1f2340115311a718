#!/bin/bash
# chromadb 1.5.9: get(ids=["c", "a"]) gives a and c, in the order in which they were added; a missing id leaves no gap.
#
# Guess: what is asked for by a list of ids comes back in the order of the list, or with a gap where an id isn't there,
# as with a qdrant client's retrieve().
# Seen: ids only choose: documents, metadatas and embeddings come in the order of the first add(), whatever the list
# says, and unknown ids are left out. The result's own ids tell which is which. The method's documentation says "only
# return records with these IDs".
#
# Where it matters: a reranker or a fusion of two rankings returns ids, best first; the texts that are fetched for them
# and put into the prompt stand in the order of the files. zip(ids, documents) pairs the wrong ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check chromadb==1.5.9
cat > "$folder/ask.py" <<'PYTHON'
import chromadb
from chromadb.config import Settings

client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
shelf = client.create_collection("shelf", embedding_function=None)
shelf.add(ids=["a", "b", "c"], embeddings=[[1, 0], [0, 1], [1, 1]], documents=["apple", "bread", "cheese"])
for best in (["c", "a"], ["c", "zz", "b"]):
    got = shelf.get(ids=best)
    print("asked", best, "got", got["ids"], "paired by zip", dict(zip(best, got["documents"])))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="asked ['c', 'a'] got ['a', 'c'] paired by zip {'c': 'apple', 'a': 'cheese'}
asked ['c', 'zz', 'b'] got ['b', 'c'] paired by zip {'c': 'bread', 'zz': 'cheese'}"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
