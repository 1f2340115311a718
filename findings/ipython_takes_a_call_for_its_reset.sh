#!/bin/bash
# ipython 9.18.1: `reset(softmax)`, where nothing is called reset, is no NameError: it is the magic %reset.
#
# Guess: a cell that calls a function which was not imported ends in a NameError, as `rest(softmax)` does.
# Seen: where a cell's single line begins with a magic's name, parentheses or not, the magic runs: %reset asks whether to
# delete all variables, and on y says that it doesn't know how to reset "(softmax)". In two lines it is a NameError.
#
# Where it matters: a course, or any library, whose function is called reset, history, time, run or who.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check ipython==9.18.1
cat > "$folder/ask.py" <<'PYTHON'
import builtins

from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.showtraceback = lambda *args, **kwargs: None
for cell in ["rest(softmax)", "x = 2\nreset(softmax)", "reset(softmax)"]:
    asked = []
    builtins.input = lambda prompt="": asked.append(prompt) or "y"
    shell.user_ns["softmax"] = 1
    result = shell.run_cell(cell, silent=True)
    error = result.error_in_exec or result.error_before_exec
    kept = "kept" if "softmax" in shell.user_ns else "deleted"
    print(f"{cell!r}: {type(error).__name__}, asked {len(asked)} times, variables {kept}")
PYTHON
HOME=$folder "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
[ "$(grep -c 'NameError, asked 0 times, variables kept' "$folder/told")" = 2 ] &&
    grep -q "^'reset(softmax)': NoneType, asked 1 times, variables kept" "$folder/told" && echo "as seen" ||
    { echo "it has changed"; exit 1; }
