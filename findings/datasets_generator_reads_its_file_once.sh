#!/bin/bash
# datasets 5.2.0: Dataset.from_generator gives the rows of a file as it was at the first run, however often it is
# changed.
#
# Guess: from_generator(read) calls read(), and so reads rows.jsonl as it is now; what it writes to disk is there to
# keep the memory small. load_dataset("json", ...) notices a changed file, too.
# Seen: the generator's code is hashed, and what it yielded is taken from the cache in every later process; the file
# isn't opened. load_dataset reads it anew. The documentation of fingerprint says that the default is a hash of the
# generator, and no more.
#
# Where it matters: a generator over a folder, a database or an API. New examples, and corrected ones, never come in.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 dill==0.4.1 numpy==2.4.6
export HF_HOME="$folder/cache" HF_DATASETS_OFFLINE=1
cd "$folder"
cat > ask.py <<'PYTHON'
import json

import datasets

datasets.disable_progress_bars()


def read():
    with open("rows.jsonl") as lines:
        yield from map(json.loads, lines)


print("generator", datasets.Dataset.from_generator(read)["x"][:], end=" ")
print("file", datasets.load_dataset("json", data_files="rows.jsonl", split="train")["x"][:])
PYTHON
for rows in '{"x": 1}' '{"x": 7}\n{"x": 8}'; do
    printf "$rows\n" > rows.jsonl
    venv/bin/python ask.py
done | tee told
wanted="generator [1] file [1]
generator [1] file [7, 8]"
if [ "$(cat told)" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
