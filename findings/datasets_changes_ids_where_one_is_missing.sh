#!/bin/bash
# datasets 5.2.0: with_format("torch") changes the number 16777217 to 16777216 if another row of the batch has None;
# read alone, the row is right.
#
# Guess: an int64 column is an int64 tensor ("int64" is what the documentation shows); where a value is missing, it is
# an error or NaN in float64, and the numbers that are there stay what they are.
# Seen: pyarrow turns the integers with a gap into float64, and the formatter makes float32 of it, which holds integers
# to 16,777,216: an id moves by one, one of 19 digits by some ten thousand millions. The same for "numpy", and for lists
# with a gap. Row by row the number is an exact int64, so ds[0] and ds[:2] disagree, and so do batches with and without
# a gap.
#
# Where it matters: ids of documents and users, hashes, time stamps, labels from other systems: joins find nothing or
# the wrong row, for some batches only. Fill the gaps before with_format (map), or keep ids as text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
from datasets import Dataset

rows = Dataset.from_dict({"id": [16777217, 1234567890123456789, None], "tags": [[16777217, None], [1], [2]]})
print("column", rows.features["id"].dtype)
for name in ("torch", "numpy"):
    shown = rows.with_format(name)
    for told, ids in [("row 0", shown[0]["id"]), ("rows 0-1", shown[:2]["id"]), ("rows 0-2", shown[:3]["id"])]:
        print(name, told, str(ids.dtype), *[int(number) for number in ids.reshape(-1)[:2]])
    tags = shown[:1]["tags"][0]
    print(name, "list with a gap", str(tags.dtype), int(tags[0]))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="column int64
torch row 0 torch.int64 16777217
torch rows 0-1 torch.int64 16777217 1234567890123456789
torch rows 0-2 torch.float32 16777216 1234567939550609408
torch list with a gap torch.float32 16777216
numpy row 0 int64 16777217
numpy rows 0-1 int64 16777217 1234567890123456789
numpy rows 0-2 float32 16777216 1234567939550609408
numpy list with a gap float32 16777216"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
