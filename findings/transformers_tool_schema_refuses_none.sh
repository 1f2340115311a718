#!/bin/bash
# transformers 5.23.0: get_json_schema of `unit: str | None = None` is a schema for which None is wrong.
#
# Guess: the schema is JSON Schema, as the name says, and lets through what the function takes: null for a parameter
# that may be None, as pydantic 2.14.3's schema of the same function does.
# Seen: the parameter is {"type": "string", "nullable": true}. nullable is a word of OpenAPI 3.0, which JSON Schema
# doesn't know: jsonschema 4.26.0 says that None is not of type 'string'. (str | int) is written as a list of types,
# which would have done.
#
# Where it matters: the schema goes into the prompt, into the check of the model's calls and into guided decoding. A
# model that writes null is refused; one that is held to the schema must make up a unit or leave it out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 numpy==2.4.6 jsonschema==4.26.0 pydantic==2.14.3
cat > "$folder/ask.py" <<'PYTHON'
import json

import jsonschema
from pydantic import TypeAdapter
from transformers.utils import get_json_schema


def weather(city: str, unit: str | None = None, days: int | str = 1) -> str:
    """
    Tell the weather.

    Args:
        city: where
        unit: C or F
        days: how many
    """
    return city


def check(schema, call):
    try:
        jsonschema.Draft202012Validator(schema).validate(call)
        return "right"
    except jsonschema.ValidationError as error:
        return error.message


schema = get_json_schema(weather)["function"]["parameters"]
for name in ("unit", "days"):
    print(name, json.dumps(schema["properties"][name]))
for call in ({"city": "Rome"}, {"city": "Rome", "unit": "C"}, {"city": "Rome", "unit": None}):
    print(call, "transformers:", check(schema, call), "pydantic:", check(TypeAdapter(weather).json_schema(), call))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="unit {\"type\": \"string\", \"nullable\": true, \"description\": \"C or F\"}
days {\"type\": [\"integer\", \"string\"], \"description\": \"how many\"}
{'city': 'Rome'} transformers: right pydantic: right
{'city': 'Rome', 'unit': 'C'} transformers: right pydantic: right
{'city': 'Rome', 'unit': None} transformers: None is not of type 'string' pydantic: right"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
