#!/bin/bash
# xgrammar 0.2.9: the schema's pattern "[0-9]{4}" must match the whole text, and "maxLength" lets no escape pass.
#
# Guess: JSON Schema searches for a pattern (jsonschema 4.26.0: "id 2024" is valid for it), so a decoder held to the
# schema may write any valid text; and "maxLength": 3 counts characters, so "a\nb", written with its escape, fits.
# Seen: "id 2024" can't be written, only four digits can. And with maxLength the backslash is forbidden: no line feed
# and no quotation mark inside a text of any length, though both are allowed without maxLength.
#
# Where it matters: one schema for decoding and for checking means two languages. Code or quotations in a field with
# maxLength come out without line feeds and quotation marks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xgrammar==0.2.9 jsonschema==4.26.0 torch==2.13.0 \
    numpy==2.4.6 transformers==5.23.0
cat > "$folder/ask.py" <<'PYTHON'
import json

import jsonschema
import xgrammar

tokens = [chr(code) for code in range(32, 127)] + ["<eos>"]
compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(tokens, stop_token_ids=[len(tokens) - 1]))


def writes(schema, text):
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))
    return matcher.accept_string(json.dumps(text)) and matcher.accept_token(len(tokens) - 1)


rules = (({"pattern": "[0-9]{4}"}, ("2024", "id 2024")), ({"maxLength": 9}, ("abc", "a\nb", 'a"b')), ({}, ("a\nb",)))
for rule, texts in rules:
    for text in texts:
        schema = {"type": "string", **rule}
        valid = jsonschema.Draft202012Validator(schema).is_valid(text)
        print(json.dumps(rule), json.dumps(text), valid, writes(schema, text))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/told"
cat > "$folder/wanted" <<'TEXT'
{"pattern": "[0-9]{4}"} "2024" True True
{"pattern": "[0-9]{4}"} "id 2024" True False
{"maxLength": 9} "abc" True True
{"maxLength": 9} "a\nb" True False
{"maxLength": 9} "a\"b" True False
{} "a\nb" True True
TEXT
if cmp -s "$folder/told" "$folder/wanted"; then echo "as seen"; else echo "it has changed"; exit 1; fi
