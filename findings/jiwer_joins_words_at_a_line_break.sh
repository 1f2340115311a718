#!/bin/bash
# jiwer 4.0.0: two words with a line break between them are one word; with two line breaks they are two.
#
# Guess: words are apart wherever there is white space, so a transcript in lines has the word error rate 0 against the
# same text in one line.
# Seen: one line break, tab or no-break space doesn't separate: "hello" and "world" in two lines become one word, and
# the rate against "hello world" is 2.0 (1.0 the other way round). Runs of two and more are first made one blank, so two
# line breaks separate. The character error rate is as small as one letter, which gives the fault away.
#
# Where it matters: transcripts and outputs of models come in lines. A perfect answer counts as wrong in every line's
# last word. " ".join(text.split()) before the call mends it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jiwer==4.0.0
cat > "$folder/ask.py" <<'PYTHON'
import jiwer

line = "hello world"
for name, text in {
    "blank": "hello world", "two blanks": "hello  world", "line break": "hello\nworld",
    "two line breaks": "hello\n\nworld", "tab": "hello\tworld", "no-break space": "hello\u00a0world",
}.items():
    print(f"{name}: as the reference {jiwer.wer(text, line)}, as the answer {jiwer.wer(line, text)}", end=", ")
    print(f"letters {jiwer.cer(line, text):.2f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="blank: as the reference 0.0, as the answer 0.0, letters 0.00
two blanks: as the reference 0.0, as the answer 0.0, letters 0.09
line break: as the reference 2.0, as the answer 1.0, letters 0.09
two line breaks: as the reference 0.0, as the answer 0.0, letters 0.18
tab: as the reference 2.0, as the answer 1.0, letters 0.09
no-break space: as the reference 2.0, as the answer 1.0, letters 0.09"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
