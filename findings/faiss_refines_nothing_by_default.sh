#!/bin/bash
# faiss-cpu 1.15.1: an index with ",RFlat" (refined by the exact vectors) finds not one more neighbour than without.
#
# Guess: "PQ8x4,RFlat" looks up some more candidates by the compressed codes and ranks them by their exact distances,
# so recall@10 is higher than that of "PQ8x4".
# Seen: the default k_factor is 1: for ten neighbours ten candidates are taken and put into another order. recall@10
# is the same, .21, though the exact vectors lie in memory as well. With k_factor 10 it is .62.
#
# Where it matters: retrieval with compressed vectors. Whoever measures recall@k says that refining is no use. Set
# index.k_factor, or pass IndexRefineSearchParameters(k_factor=10).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import faiss
import numpy as np

faiss.omp_set_num_threads(1)
numbers = np.random.default_rng(0)
x, queries = (numbers.normal(size=(n, 32)).astype(np.float32) for n in (10_000, 200))
exact = faiss.IndexFlatL2(32)
exact.add(x)
right = exact.search(queries, 10)[1]


def recall(found):
    return np.mean([len({*a} & {*b}) / 10 for a, b in zip(found, right)])


index = faiss.index_factory(32, "PQ8x4,RFlat")
index.train(x)
index.add(x)
plain = recall(index.base_index.search(queries, 10)[1])
print("k_factor by default:", index.k_factor)
print("refined by default:", "the same recall" if recall(index.search(queries, 10)[1]) == plain else "another recall")
index.k_factor = 10
print("k_factor 10:", "more than twice the recall" if recall(index.search(queries, 10)[1]) > 2 * plain else "less")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="k_factor by default: 1.0
refined by default: the same recall
k_factor 10: more than twice the recall"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
