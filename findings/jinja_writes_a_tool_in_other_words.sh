#!/bin/bash
# jinja2 3.1.6, minijinja 3.1.0: a chat template with {{ tool | tojson }} is another prompt than with transformers
# 5.23.0.
#
# Guess: a chat template is a Jinja template, so jinja2 with trim_blocks and lstrip_blocks, as transformers sets them,
# gives the text that apply_chat_template gives; and minijinja, which servers in Rust and C use, gives it as well.
# Seen: three texts. jinja2's own filter sorts the keys, writes é as \u00e9, and < > & ' as codes. minijinja keeps the
# order and é and writes the codes. transformers has a filter of its own: json.dumps with ensure_ascii=False.
#
# Where it matters: a tool's description with "it's" or "<" reaches the model as \u0027 and \u003c, unlike in
# training, where the template is rendered by something else than transformers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jinja2==3.1.6 minijinja==3.1.0 transformers==5.23.0
cat > "$folder/ask.py" <<'PYTHON'
import jinja2
import minijinja
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

template = "{%- for tool in tools %}{{ tool | tojson }}{%- endfor %}"
tools = [{"name": "find", "about": "who's in a <café>"}]
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=template)
how = {"trim_blocks": True, "lstrip_blocks": True}
print(tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tools=tools, tokenize=False))
print(jinja2.Environment(**how).from_string(template).render(tools=tools))
print(minijinja.Environment(**how).render_str(template, tools=tools))
PYTHON
PYTHONUTF8=1 "$folder/venv/bin/python" -W ignore "$folder/ask.py" 2> /dev/null | tee "$folder/told"
cat > "$folder/wanted" <<'TEXT'
{"name": "find", "about": "who's in a <café>"}
{"about": "who\u0027s in a \u003ccaf\u00e9\u003e", "name": "find"}
{"name": "find", "about": "who\u0027s in a \u003ccafé\u003e"}
TEXT
if cmp -s "$folder/told" "$folder/wanted"; then echo "as seen"; else echo "it has changed"; exit 1; fi
