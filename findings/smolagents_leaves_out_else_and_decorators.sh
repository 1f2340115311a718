#!/bin/bash
# smolagents 1.26.0: the else of a loop, a decorator and a property do nothing in an agent's code; no return gives a
# value.
#
# Guess: what the executor can't do it refuses by name, as it does for yield, global and match; a function without
# return gives None.
# Seen: the else branch of for and while is never run, a decorated function is the undecorated one, a property is a
# method that wasn't called, and a function without return gives its last line's value. Defaults are evaluated at each
# call.
#
# Where it matters: search loops (for ... else: "not found") and rechecking of results: the branch that should have
# caught the miss is skipped, and the old value is used.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check smolagents==1.26.0
cat > "$folder/ask.py" <<'PYTHON'
from smolagents.local_python_executor import LocalPythonExecutor

programs = {
    "for else": "answer = 'found'\nfor n in (1, 3):\n    if n == 2:\n        break\nelse:\n    answer = 'not found'\n",
    "while else": "answer, n = 'open', 0\nwhile n < 2:\n    n += 1\nelse:\n    answer = 'done'\n",
    "decorator": """
def twice(function):
    def run(x):
        return 2 * function(x)
    return run
@twice
def f(x):
    return x
answer = f(3)
""",
    "property": """
class Circle:
    @property
    def area(self):
        return 3
answer = Circle().area == 3
""",
    "no return": "def f():\n    5\nanswer = f()\n",
    "default": "def f(x, seen=[]):\n    seen.append(x)\n    return len(seen)\nf(1)\nanswer = f(2)\n",
}
for name, program in programs.items():
    names = {}
    exec(program, names)
    executor = LocalPythonExecutor(additional_authorized_imports=[])
    executor.send_tools({})
    print(f"{name}: Python {names['answer']!r}, executor {executor(program + 'answer').output!r}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="for else: Python 'not found', executor 'found'
while else: Python 'done', executor 'open'
decorator: Python 6, executor 3
property: Python True, executor False
no return: Python None, executor 5
default: Python 2, executor 1"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
