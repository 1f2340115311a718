#!/bin/bash
# trl 1.16.0: of the preference pair "... Paris" and "... Prague" extract_prompt makes a prompt that ends in P and the
# answers "aris" and "rague".
#
# Guess: the prompt that two texts share ends where a word ends: "Capital of France?" with " Paris" and " Prague", as
# with the "The sky is" of the examples.
# Seen: it ends at the first letter that differs (a blank before it is left to the answers), so words and numbers are
# cut: 12 and 13 become 1 with 2 and 3. The documentation speaks of the "longest common sequence (prefix) of
# conversation turns", and shows messages, which are compared whole; "blue" and "green" begin with different letters.
#
# Where it matters: prompts that are taken out of such pairs, to sample new answers (GRPO, a judge, a test), give away
# how the answer begins: the P, the first digit, at times the whole first sentence. DPOTrainer, which calls it where
# there is no column "prompt", takes the tokens of the whole text and moves the border to where they part, with a
# warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check trl==1.16.0 transformers==5.23.0 datasets==5.2.0 \
    accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
from trl import extract_prompt

for chosen, rejected in [
    ("The sky is blue.", "The sky is green."), ("Capital of France? Paris", "Capital of France? Prague"),
    ("5 + 7 = 12", "5 + 7 = 13"), ("Is it so? It is.", "Is it so? It isn't."),
]:
    print(*[f"[{text}]" for text in extract_prompt({"chosen": chosen, "rejected": rejected}).values()])
asked = {"role": "user", "content": "Capital?"}
said = [[asked, {"role": "assistant", "content": name}] for name in ("Paris", "Prague")]
made = extract_prompt({"chosen": said[0], "rejected": said[1]})
print("as messages:", *[f"[{messages[0]['content']}]" for messages in made.values()])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="[The sky is] [ blue.] [ green.]
[Capital of France? P] [aris] [rague]
[5 + 7 = 1] [2] [3]
[Is it so? It is] [.] [n't.]
as messages: [Capital?] [Paris] [Prague]"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
