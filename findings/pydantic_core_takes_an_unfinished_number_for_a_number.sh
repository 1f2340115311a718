#!/bin/bash
# pydantic-core 2.50.4, jiter 0.19.0: of a JSON that is still being written the unfinished string is left out, the
# unfinished number isn't: {"amount": 1 is 1, and a moment later 12, and 120.
#
# Guess: from_json(text, allow_partial=True) gives what is complete ("discarding incomplete last field", says jiter's
# README): a number at the end may go on, so it waits for what comes after.
# Seen: text, true and null wait until they are whole; digits don't: each digit makes another number, and where "1." or
# "1e" stands the field is gone again. So the values of one field, as the answer comes in, are 1, 12, 120, none, 120.5.
#
# Where it matters: arguments of a tool call and fields of a structured answer that are shown, checked or acted on while
# they come in: the first amount that is valid is a tenth or a thousandth of the amount. Act on a number only when the
# next key has begun.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pydantic-core==2.50.4 jiter==0.19.0
cat > "$folder/ask.py" <<'PYTHON'
import jiter
from pydantic_core import from_json

for whole, key in [('{"amount": 120.5}', "amount"), ('{"city": "Rome"}', "city"), ('{"paid": true}', "paid")]:
    for name, read in [
        ("pydantic-core", lambda text: from_json(text, allow_partial=True)),
        ("jiter", lambda text: jiter.from_json(text.encode(), partial_mode=True)),
    ]:
        seen = [read(whole[:end]).get(key, "-") for end in range(1, len(whole) + 1)]
        print(name, "field", key, "while it is written:", *[new for old, new in zip(["", *seen], seen) if new != old])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="pydantic-core field amount while it is written: - 1 12 120 - 120.5
jiter field amount while it is written: - 1 12 120 - 120.5
pydantic-core field city while it is written: - Rome
jiter field city while it is written: - Rome
pydantic-core field paid while it is written: - True
jiter field paid while it is written: - True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
