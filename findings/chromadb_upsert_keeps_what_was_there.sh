#!/bin/bash
# chromadb 1.5.9: upsert() of a record keeps the old text and the old metadata wherever the new one has none.
#
# Guess: upsert puts the record in the place of the old one, as it does in qdrant and in SQL databases that know the
# word: what isn't in the new record isn't there afterwards.
# Seen: metadata are merged key by key, and a record without a document gets the old one's text beside the new
# embedding. update() does so, too, which its name says. A key goes only by setting it to None, all of it only by
# delete() and add(). The method's documentation: "Create or update records by ID".
#
# Where it matters: an index that is kept up to date: a page that is no draft any more still has draft: True and is
# filtered out; a text that was left out, since only the vector was to be stored, is the text of the older version.
# Delete before adding.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check chromadb==1.5.9
cat > "$folder/ask.py" <<'PYTHON'
import chromadb
from chromadb.config import Settings

client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
pages = client.create_collection("pages", embedding_function=None)


def show(when):
    record = pages.get(ids=["a"], include=["documents", "metadatas", "embeddings"])
    metadata = dict(sorted(record["metadatas"][0].items()))
    print(f"{when}: {record['embeddings'][0].tolist()} {record['documents'][0]!r} {metadata}")


pages.add(ids=["a"], embeddings=[[1, 0]], documents=["first version"], metadatas=[{"draft": True, "year": 2025}])
show("added")
pages.upsert(ids=["a"], embeddings=[[0, 1]], metadatas=[{"year": 2026}])
show("upsert")
pages.delete(ids=["a"])
pages.add(ids=["a"], embeddings=[[0, 1]], metadatas=[{"year": 2026}])
show("deleted and added")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="added: [1.0, 0.0] 'first version' {'draft': True, 'year': 2025}
upsert: [0.0, 1.0] 'first version' {'draft': True, 'year': 2026}
deleted and added: [0.0, 1.0] None {'year': 2026}"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
