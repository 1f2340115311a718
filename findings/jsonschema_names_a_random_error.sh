#!/bin/bash
# jsonschema 4.26.0: which of two equal errors check_schema() names depends on the process's hash seed.
#
# Guess: a tool's schema with two wrong parameter types ("str" and "int" for JSON Schema's "string" and "integer") is
# refused with the error of the first parameter, in every process.
# Seen: Python 3.11, 12 processes: in some the first parameter is named, in others the second. The properties are walked
# through a set, and best_match() keeps the first of equal errors. iter_errors() sorted by json_path is the same always.
#
# Where it matters: a check that repeats the message tells two learners with one program two things.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jsonschema==4.26.0
cat > "$folder/ask.py" <<'PYTHON'
import jsonschema

parameters = {"type": "object", "properties": {"city": {"type": "str"}, "days": {"type": "int"}}}
Validator = jsonschema.Draft202012Validator
try:
    Validator.check_schema(parameters)
except jsonschema.SchemaError as error:
    named = error.json_path
errors = Validator(Validator.META_SCHEMA).iter_errors(parameters)
print(named, sorted(error.json_path for error in errors)[0])
PYTHON
for seed in 1 2 3 4 5 6 7 8 9 10 11 12; do PYTHONHASHSEED=$seed "$folder/venv/bin/python" "$folder/ask.py"; done > "$folder/told"
sort "$folder/told" | uniq -c
named=$(cut -d' ' -f1 "$folder/told" | sort -u | wc -l)
sorted=$(cut -d' ' -f2 "$folder/told" | sort -u | wc -l)
if [ "$named" = 2 ] && [ "$sorted" = 1 ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
