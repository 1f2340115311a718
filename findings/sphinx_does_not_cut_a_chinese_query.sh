#!/bin/bash
# Sphinx 9.0.4, language "zh", with jieba: the index is cut into words, the query is not, so a phrase isn't found.
#
# Guess: 旋转位置编码 ("rotary position embedding") is found on the one page that has it, since jieba cuts page and query
# into the same words.
# Seen: jieba cuts only the page (旋转, 位置, 编码). The pages' JavaScript takes the query as one word, 旋转位置编码, which is
# neither in the index nor a part of a word in it, and a word that isn't there rules a page out. 位置 alone is found.
#
# Where it matters: a Chinese search must be cut alike on both sides (website/extension.py). A site that is tried with
# short words looks as if it worked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check sphinx==9.0.4 jieba==0.42.1 "setuptools<81"
mkdir "$folder/site"
printf 'project = "x"\nlanguage = "zh"\n' > "$folder/site/conf.py"
printf '标题\n====\n\n旋转位置编码。\n' > "$folder/site/index.rst"
"$folder/venv/bin/python" -W ignore -m sphinx -q -b html "$folder/site" "$folder/html" 2> /dev/null
cat > "$folder/ask.py" <<'PYTHON'
import json
import pathlib
import re
import sys

html = pathlib.Path(sys.argv[1])
index = (html / "searchindex.js").read_text("utf-8")
terms = sorted(json.loads(index[index.index("(") + 1 : index.rindex(")")])["terms"])
print("in the index:", *terms)
tools = (html / "_static/searchtools.js").read_text("utf-8")
own = "splitQuery" in (html / "_static/language_data.js").read_text("utf-8")
print("the language cuts queries:", own)
print("else they are cut:", re.search(r"\.split\((.*)\)\n", tools)[1])
for query in ("旋转位置编码", "位置"):
    words = re.findall(r"\w+", query)  # "the same as \W+ in Python", says searchtools.js
    print("asked:", *words, "->", all(any(word in term for term in terms) for word in words))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder/html" | tee "$folder/told"
wanted="in the index: 位置 旋转 编码
the language cuts queries: False
else they are cut: /[^\p{Letter}\p{Number}_\p{Emoji_Presentation}]+/gu
asked: 旋转位置编码 -> False
asked: 位置 -> True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
