#!/bin/bash
# lm-format-enforcer 0.11.3: under {"type": "string"} a model can't write é, 中, ~ or |.
#
# Guess: a JSON string may hold any character, so with no pattern every one is allowed.
# Seen: only the characters of a fixed alphabet are: letters without accents, digits, most ASCII signs. é, 中, € and
# also ~ and | are refused; only as \u00e9 may é be written. No error: the model is led past them. With
# CharacterLevelParserConfig(alphabet=...) one gives it another alphabet.
#
# Where it matters: replies in French or Chinese, tables in Markdown, paths with ~. They come out misspelled.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check lm-format-enforcer==0.11.3
cat > "$folder/ask.py" <<'PYTHON'
from lmformatenforcer import CharacterLevelParserConfig, JsonSchemaParser
from lmformatenforcer.consts import COMPLETE_ALPHABET

for name, more in (("as it is", ""), ("alphabet given", "é中€~|")):
    config = CharacterLevelParserConfig(alphabet=COMPLETE_ALPHABET + more) if more else CharacterLevelParserConfig()
    parser = JsonSchemaParser({"type": "string"}, config).add_character('"')
    print(f"{name}:", *(f"{sign} {sign in parser.get_allowed_characters()}" for sign in "eé中€~|#`\\"))
PYTHON
PYTHONUTF8=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="as it is: e True é False 中 False € False ~ False | False # True \` True \\ True
alphabet given: e True é True 中 True € True ~ True | True # True \` True \\ True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
