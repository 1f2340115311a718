#!/bin/bash
# faiss-cpu 1.15.1: index_factory(d, "HNSW16,PQ8", METRIC_INNER_PRODUCT) makes an index that ranks by L2 distance.
#
# Guess: the factory makes an index for the metric it is given, or refuses, as it does for "HNSW16,RaBitQ" ("supports
# only the L2 metric") and "LSH".
# Seen: for HNSW and NSG with PQ the metric is dropped without a word: metric_type is L2, and of the ten vectors with
# the greatest inner product about one is found, as by chance. Everything behind it, ",RFlat" too, ranks by L2.
# "HNSW16,SQ8", "HNSW16,Flat" and "PQ8" keep the metric.
#
# Where it matters: embeddings that aren't normalized, and scores: the "similarities" that come back are distances,
# the best the least. Assert index.metric_type after the factory. (On unit vectors the ranking is the same.)
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
x = (numbers.normal(size=(1000, 32)) * numbers.uniform(0.5, 2, size=(1000, 1))).astype(np.float32)
queries = x[:100]
right = {
    "inner product": (-queries @ x.T).argsort(axis=1)[:, :10],
    "L2": np.stack([((x - query) ** 2).sum(axis=1).argsort()[:10] for query in queries]),
}
for name in ("PQ8x4", "HNSW16,Flat", "HNSW16,SQ8", "HNSW16,PQ8x4", "HNSW16,PQ8x4,RFlat", "NSG16,PQ8x4"):
    index = faiss.index_factory(32, name, faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add(x)
    found = index.search(queries, 10)[1]
    recall = {of: np.mean([len({*a} & {*b}) / 10 for a, b in zip(found, near)]) for of, near in right.items()}
    metric = "inner product" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "L2"
    print(f"{name}: metric_type {metric}, finds the neighbours by {max(recall, key=recall.get)}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="PQ8x4: metric_type inner product, finds the neighbours by inner product
HNSW16,Flat: metric_type inner product, finds the neighbours by inner product
HNSW16,SQ8: metric_type inner product, finds the neighbours by inner product
HNSW16,PQ8x4: metric_type L2, finds the neighbours by L2
HNSW16,PQ8x4,RFlat: metric_type L2, finds the neighbours by L2
NSG16,PQ8x4: metric_type L2, finds the neighbours by L2"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
