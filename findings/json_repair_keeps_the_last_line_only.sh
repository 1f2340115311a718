#!/bin/bash
# json-repair 0.64.6: of three JSON lines with the same keys loads() gives the last one alone.
#
# Guess: several objects in a row come back as a list, whatever they hold: {"a": 1}{"b": 2} does, and so do three lines
# with three different keys.
# Seen: an object with the same keys as the one before takes its place (a model that corrects itself is thought of), so
# three lines of rows end as one dict, the third row, and two rows with a text between them do, too. With a comma
# between them, all are kept. The README shows nothing of it; issue 157 asked.
#
# Where it matters: a model that is asked for rows of data answers in JSON lines. len() of the result is the number of
# keys then, and all rows but one are gone without a word. Split such an answer into lines first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check json-repair==0.64.6
cat > "$folder/ask.py" <<'PYTHON'
from json_repair import loads

rows = ['{"city": "Rome", "n": 1}', '{"city": "Oslo", "n": 2}', '{"city": "Bern", "n": 3}']
print("one line each", loads("\n".join(rows)))
print("in one line", loads("".join(rows)))
print("words between", loads("First: " + rows[0] + " Second: " + rows[1]))
print("commas", len(loads(", ".join(rows))), "of 3")
print("other keys", loads('{"a": 1}\n{"b": 2}\n{"c": 3}'))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="one line each {'city': 'Bern', 'n': 3}
in one line {'city': 'Bern', 'n': 3}
words between {'city': 'Oslo', 'n': 2}
commas 3 of 3
other keys [{'a': 1}, {'b': 2}, {'c': 3}]"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
