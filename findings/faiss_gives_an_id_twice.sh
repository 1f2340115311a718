#!/bin/bash
# faiss-cpu 1.15.1: after remove_ids() on an IVF index, add() gives new vectors the ids of vectors that are still
# there.
#
# Guess: an IVF index keeps the ids of what stays (unlike IndexFlat, which counts anew), so a new vector gets an id
# that no other has: 100 vectors, the first 50 removed, the next 50 get 100 to 149.
# Seen: add() counts from ntotal, which is 50 by then: the new ones get 50 to 99, which the old ones have. A search
# gives 99 for two different vectors; merge_from(other, 0) does so as well; a later remove_ids([99]) takes both.
#
# Where it matters: an index of documents that is kept up to date. Half of the answers point to the wrong text. Always
# use add_with_ids() with ids of one's own, from the first vector on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import faiss
import numpy as np

faiss.omp_set_num_threads(1)
x = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
index = faiss.index_factory(16, "IVF10,Flat")
index.nprobe = 10
index.train(x)
index.add(x[:100])
index.remove_ids(np.arange(50))
index.add(x[100:150])
print("vectors 60, 99 (old) and 110, 149 (new):", *index.search(x[[60, 99, 110, 149]], 1)[1].ravel())
ids = np.sort(index.search(x[:1], 100)[1].ravel())
print(f"{index.ntotal} vectors, {len(set(ids))} different ids, {ids[0]} to {ids[-1]}")
print("removed with the id 99:", index.remove_ids(np.array([99])))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="vectors 60, 99 (old) and 110, 149 (new): 60 99 60 99
100 vectors, 50 different ids, 50 to 99
removed with the id 99: 2"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
