#!/bin/bash
# langchain-core 1.8.3: JsonOutputParser.parse() of an answer that was cut off gives what there is, and no error.
#
# Guess: an answer that ends in the middle, since max_tokens was reached, is no JSON, so parse() raises
# OutputParserException, as its documentation says ("If the output is not valid JSON"); partial=True is there for
# streaming.
# Seen: strings, lists and objects that are open at the end are closed, partial or not: "The cap" for "The capital is
# Rome", 12 for 125, two steps of five. PydanticOutputParser takes them as well where the missing fields have defaults.
# Text after the JSON and a second object are dropped. Only without a beginning, or with single quotes, is it an error.
#
# Where it matters: max_tokens cuts some answers. They go on as short ones, and a retry on errors never comes. Check
# finish_reason, or json.loads() first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check langchain-core==1.8.3
cat > "$folder/ask.py" <<'PYTHON'
from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from pydantic import BaseModel


class Answer(BaseModel):
    text: str
    sources: list[str] = []


cut = ['{"text": "The cap', '{"price": 12', '{"steps": ["wash", "cut"', '{"keep": true, "delete": fal']
for text in [*cut, "{'text': 'x'}"]:
    try:
        print(text, "->", JsonOutputParser().parse(text))
    except OutputParserException:
        print(text, "-> refused")
print("pydantic", repr(PydanticOutputParser(pydantic_object=Answer).parse('{"text": "The cap')))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="{\"text\": \"The cap -> {'text': 'The cap'}
{\"price\": 12 -> {'price': 12}
{\"steps\": [\"wash\", \"cut\" -> {'steps': ['wash', 'cut']}
{\"keep\": true, \"delete\": fal -> {'keep': True}
{'text': 'x'} -> refused
pydantic Answer(text='The cap', sources=[])"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
