#!/bin/bash
# langchain-text-splitters 1.1.3: MarkdownHeaderTextSplitter takes the indentation out of code blocks and nested lists.
#
# Guess: the splitter cuts a page at its headers and leaves the lines as they are, above all between fences, which it
# knows (a # in there is no header).
# Seen: every line is stripped, in a fence as well: a Python function comes out with all its lines at the left edge. A
# nested list becomes flat, and a comment in code that is indented by four blanks becomes a header with the following
# text under it. The class's documentation says none of this (issues 20823 and 40071 do).
#
# Where it matters: retrieval over documentation of code: the model is shown Python that can't run, and which line
# belongs to the loop is gone. ExperimentalMarkdownSyntaxTextSplitter keeps the lines.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check langchain-text-splitters==1.1.3 langchain-core==1.8.3
cat > "$folder/ask.py" <<'PYTHON'
from langchain_text_splitters import MarkdownHeaderTextSplitter

page = """# Loops
```python
for x in (1, 2):
    y = 2 * x
print(y)
```
- fruit
  - apple

Or so:

    # double
    y = 4
"""
for part in MarkdownHeaderTextSplitter([("#", "title")]).split_text(page):
    print(part.metadata["title"], [line.rstrip() for line in part.page_content.split("\n")])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="Loops ['\`\`\`python', 'for x in (1, 2):', 'y = 2 * x', 'print(y)', '\`\`\`', '- fruit', '- apple', 'Or so:']
double ['y = 4']"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
