#!/bin/bash
# rensa 0.5.0: RMinHashLSH(threshold=.9) and RMinHashLSH(threshold=.2) give the same answers to query().
#
# Guess: query(sketch) gives the keys whose similarity is about the threshold or more, as with datasketch's MinHashLSH,
# which chooses its bands by the threshold: with .9 only the copies, with .2 nearly all of the nine texts here.
# Seen: query() gives whatever shares a band; num_bands alone decides, and threshold is used by is_similar() only. With
# 16 bands of 8 the texts down to .67 are found for threshold .9, and those below aren't found for .2. Its docstring
# says "potentially similar items", not that the number has no part in it.
#
# Where it matters: removing near duplicates by query(): texts that share two thirds of their words are thrown away for
# a threshold of .9. Check each candidate with is_similar(), and choose the bands by (1 / bands) ** (bands / num_perm).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check rensa==0.5.0 datasketch==2.0.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
from datasketch import MinHash, MinHashLSH
from rensa import RMinHash, RMinHashLSH

words = [f"word {number}" for number in range(200)]
texts = {  # by the Jaccard similarity with the whole
    f"{kept / (400 - kept):.2f}": words[:kept] + [f"other {kept} {number}" for number in range(200 - kept)]
    for kept in range(200, 20, -20)
}


def sketch(text):
    made = RMinHash(num_perm=128, seed=1)
    made.update(text)
    return made


def other(text):
    made = MinHash(num_perm=128, seed=1)
    made.update_batch([word.encode() for word in text])
    return made


for threshold in (0.9, 0.2):
    for name, index, make in [
        ("rensa, 16 bands", RMinHashLSH(threshold=threshold, num_perm=128, num_bands=16), sketch),
        ("rensa, 32 bands", RMinHashLSH(threshold=threshold, num_perm=128, num_bands=32), sketch),
        ("datasketch", MinHashLSH(threshold=threshold, num_perm=128), other),
    ]:
        for number, text in enumerate(texts.values()):
            index.insert(number, make(text))
        print(threshold, name, *[list(texts)[number] for number in sorted(index.query(make(words)))])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="0.9 rensa, 16 bands 1.00 0.82 0.67
0.9 rensa, 32 bands 1.00 0.82 0.67 0.54 0.43
0.9 datasketch 1.00
0.2 rensa, 16 bands 1.00 0.82 0.67
0.2 rensa, 32 bands 1.00 0.82 0.67 0.54 0.43
0.2 datasketch 1.00 0.82 0.67 0.54 0.43 0.33 0.25 0.18 0.11"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
