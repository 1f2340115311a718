#!/bin/bash
# outlines_core 0.2.14, lm-format-enforcer 0.11.3: "minimum" and "maximum" of a schema bind nothing, and nobody says
# so.
#
# Guess: a decoder constrained by {"type": "integer", "minimum": 1, "maximum": 10} can't write 100, or the schema is
# refused, as outlines_core refuses "not".
# Seen: both let 0, 11 and 100 pass, as for any integer. xgrammar 0.2.9 keeps the bounds. "maxLength" is kept by all
# three.
#
# Where it matters: a rating or a number of days that a tool reads. A reply made under the schema must still be
# checked against it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check outlines_core==0.2.14 lm-format-enforcer==0.11.3 \
    xgrammar==0.2.9 torch==2.13.0 numpy==2.4.6 transformers==5.23.0
cat > "$folder/ask.py" <<'PYTHON'
import json
import re

import xgrammar
from lmformatenforcer import JsonSchemaParser
from outlines_core.json_schema import build_regex_from_schema

tokens = [chr(code) for code in range(32, 127)] + ["<eos>"]
compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(tokens, stop_token_ids=[len(tokens) - 1]))


def outlines_core(schema, text):
    return re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None


def lm_format_enforcer(schema, text):
    parser = JsonSchemaParser(schema)
    for letter in text:
        if letter not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(letter)
    return parser.can_end()


def by_xgrammar(schema, text):
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))
    return matcher.accept_string(text) and matcher.accept_token(len(tokens) - 1)


number, word = {"type": "integer", "minimum": 1, "maximum": 10}, {"type": "string", "maxLength": 3}
for asked in (outlines_core, lm_format_enforcer, by_xgrammar):
    passed = [text for text in ("0", "1", "10", "11", "100") if asked(number, text)]
    print(f"{asked.__name__}: {' '.join(passed)}, words", *(asked(word, text) for text in ('"abc"', '"abcd"')))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/told"
wanted="outlines_core: 0 1 10 11 100, words True False
lm_format_enforcer: 0 1 10 11 100, words True False
by_xgrammar: 1 10, words True False"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
