#!/bin/bash
# faiss-cpu 1.15.1: an HNSW index of 1,000 vectors, asked for the nearest 500, gives about half and fills up with −1.
#
# Guess: a search for k of more than k vectors gives k different ids, since where k is greater than efSearch (16) the
# search looks at k candidates; what is approximate is which ones.
# Seen: k = 100 gives 100, k = 500 about half, k = 900 about a quarter; the other places hold −1 and the distance
# 3.4e38, with L2 and with the inner product. efSearch = k fills them all.
#
# Where it matters: reranking and mining of hard negatives take a large k. In Python texts[-1] is the last text, so
# the missing ones are read as one and the same document.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import faiss
import numpy as np

faiss.omp_set_num_threads(1)
vectors = np.random.default_rng(0).normal(size=(1000, 32)).astype(np.float32)
for name in ("METRIC_L2", "METRIC_INNER_PRODUCT"):
    index = faiss.IndexHNSWFlat(32, 16, getattr(faiss, name))
    index.add(vectors)
    for k, look in ((100, 16), (500, 16), (900, 16), (500, 500)):
        index.hnsw.efSearch = look
        found = (index.search(vectors[:50], k)[1] >= 0).mean()
        told = "all" if found == 1 else "under two thirds" if found < 2 / 3 else "most"
        print(f"{name} k={k} efSearch={look}: {told}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="METRIC_L2 k=100 efSearch=16: all
METRIC_L2 k=500 efSearch=16: under two thirds
METRIC_L2 k=900 efSearch=16: under two thirds
METRIC_L2 k=500 efSearch=500: all
METRIC_INNER_PRODUCT k=100 efSearch=16: all
METRIC_INNER_PRODUCT k=500 efSearch=16: under two thirds
METRIC_INNER_PRODUCT k=900 efSearch=16: under two thirds
METRIC_INNER_PRODUCT k=500 efSearch=500: all"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
