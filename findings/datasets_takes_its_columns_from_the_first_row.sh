#!/bin/bash
# datasets 5.2.0: a key that the first row lacks is dropped by from_list, and by map; the same rows from a file keep
# it.
#
# Guess: rows of which only some have "rejected" become a column with None where it is missing, as from_json makes it,
# or an error.
# Seen: Dataset.from_list(rows) has the columns of rows[0], and no more. What map() returns is cut to the first row's
# keys as well. Where the first row has the key, the others get None. Neither says a word.
#
# Where it matters: preferences and tool calls, where only some examples have the field. Sorting the rows decides
# whether the training sees it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0
cat > "$folder/ask.py" <<'PYTHON'
import json
import pathlib
import sys

from datasets import Dataset, disable_progress_bars

disable_progress_bars()
file = pathlib.Path(sys.argv[1]) / "rows.jsonl"
rows = [{"chosen": "a"}, {"chosen": "b", "rejected": "c"}]
for name, these in (("first row without", rows), ("first row with", rows[::-1])):
    file.write_text("".join(json.dumps(row) + "\n" for row in these))
    print(f"{name}: from_list {Dataset.from_list(these).column_names}", end=" ")
    print(f"from_json {Dataset.from_json(str(file), cache_dir=sys.argv[1] + name).column_names}")
texts = Dataset.from_dict({"text": ["a", "a b"]})
cut = texts.map(lambda row: {"second": row["text"].split()[1]} if " " in row["text"] else {})
print("map:", cut.column_names)
PYTHON
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" -W ignore "$folder/ask.py" "$folder" | tee "$folder/told"
wanted="first row without: from_list ['chosen'] from_json ['chosen', 'rejected']
first row with: from_list ['chosen', 'rejected'] from_json ['chosen', 'rejected']
map: ['text']"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
