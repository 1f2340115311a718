#!/bin/bash
# datasets 5.2.0: map() with a function from one's own module gives the old result after the module was changed.
#
# Guess: map() keeps its result under a hash of the function, so a changed function is run again: in a notebook, where
# it is, and in a module as well.
# Seen: a function defined in the script or notebook itself is hashed with its code. One that is imported is hashed by
# the name of its module and its own: prep.py is changed, a new process started, and map(prep.features) gives the old
# column from the cache. A function in the script that only calls prep.features does so as well. Nothing is said.
#
# Where it matters: tokenizing and chat templates kept in a file of their own, as one should. A mended error stays in
# the training data. load_from_cache_file=False, or a new_fingerprint made from the file, helps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 dill==0.4.1 numpy==2.4.6
export HF_HOME="$folder/cache" HF_DATASETS_OFFLINE=1
cd "$folder"
printf '{"x": 1}\n{"x": 2}\n' > rows.jsonl
cat > ask.py <<'PYTHON'
import datasets
import prep

datasets.disable_progress_bars()
factor = int(open("factor").read())
rows = datasets.load_dataset("json", data_files="rows.jsonl", split="train")


def calls(row):
    return prep.features(row)


print("imported", rows.map(prep.features)["y"][:], "calls the imported", rows.map(calls)["y"][:], end=" ")
print("defined here", rows.map(lambda row: {"y": factor * row["x"]})["y"][:])
PYTHON
for factor in 1 100; do
    echo "$factor" > factor
    echo "def features(row): return {'y': $factor * row['x']}" > prep.py
    echo "times $factor: $(PYTHONDONTWRITEBYTECODE=1 venv/bin/python ask.py)"
done | tee told
wanted="times 1: imported [1, 2] calls the imported [1, 2] defined here [1, 2]
times 100: imported [1, 2] calls the imported [1, 2] defined here [100, 200]"
if [ "$(cat told)" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
