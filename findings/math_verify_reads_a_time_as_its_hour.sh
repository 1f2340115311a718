#!/bin/bash
# math-verify 0.9.0: 12:30 and 12:45 are the same answer, 1e3 and 1 are, 1 1/2 and 1 are; 1e3 and 1000 aren't.
#
# Guess: a text that parse() doesn't wholly understand gives no answer ([], as "yes" does), or is compared as text; two
# different times are never equal.
# Seen: without dollar signs the first number in the text that it can read is the answer, whatever stands beside it: 12
# of 12:30, 1 of 1e3, 1 of 1 1/2 (which is 3/2 within dollars). The right answers 1000 and 1.5 are refused then. And 50
# percent equals .5 as well as 50, which aren't equal to each other. The README shows numbers, LaTeX and the order of
# the two arguments.
#
# Where it matters: rewards in GRPO and scores of benchmarks: with such a gold answer every answer with the right hour
# gets the reward, the right number written out gets none, and training learns it. Print parse(gold) for the whole data
# set once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'math-verify[antlr4_13_2]==0.9.0'
cat > "$folder/ask.py" <<'PYTHON'
from math_verify import parse, verify

for gold, answer in [
    ("12:30", "12:45"), ("1e3", "1"), ("1e3", "1000"), ("1 1/2", "1"), ("1 1/2", "1.5"),
    ("$1\\frac{1}{2}$", "1.5"), ("$50\\%$", "0.5"), ("$50\\%$", "50"), ("0.5", "50"), ("yes", "yes"),
]:
    print(f"{gold} = {answer}: {verify(parse(gold), parse(answer))}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted='12:30 = 12:45: True
1e3 = 1: True
1e3 = 1000: False
1 1/2 = 1: True
1 1/2 = 1.5: False
$1\frac{1}{2}$ = 1.5: True
$50\%$ = 0.5: True
$50\%$ = 50: True
0.5 = 50: False
yes = yes: False'
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
