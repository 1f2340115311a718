#!/bin/bash
# smolagents 1.26.0: in an agent's code def f(first, *rest) gets all arguments in rest, and [*a, 3] nests the list.
#
# Guess: arguments are bound as in Python: the first goes to first and the others to rest; named ones that have a place
# of their own don't turn up in **more; [*a, 3] joins; too few or too many arguments are a TypeError.
# Seen: rest holds every argument, the first included, and more every named one. A star in a list's brackets does
# nothing: [[1, 2], 3]. A missing argument is only noticed where it is used, one too many never. Nothing is said.
#
# Where it matters: sums and averages over *rest count the first number twice: the agent's arithmetic is wrong in
# silence, and no prompt tells the model that its Python isn't Python.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check smolagents==1.26.0
cat > "$folder/ask.py" <<'PYTHON'
from smolagents.local_python_executor import LocalPythonExecutor

programs = {
    "*rest": "def f(first, *rest):\n    return first + sum(rest)\nanswer = f(1, 10, 100)\n",
    "**more": "def f(a, **more):\n    return more\nanswer = f(a=1, b=2)\n",
    "[*a, 3]": "a = [1, 2]\nanswer = [*a, 3]\n",
    "too few": "def f(a, b):\n    return a\ntry:\n    answer = f(1)\nexcept TypeError:\n    answer = 'TypeError'\n",
    "too many": "def f(a):\n    return a\ntry:\n    answer = f(1, 2)\nexcept TypeError:\n    answer = 'TypeError'\n",
}
for name, program in programs.items():
    names = {}
    exec(program, names)
    executor = LocalPythonExecutor(additional_authorized_imports=[])
    executor.send_tools({})
    print(f"{name}: Python {names['answer']!r}, executor {executor(program + 'answer').output!r}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="*rest: Python 111, executor 112
**more: Python {'b': 2}, executor {'a': 1, 'b': 2}
[*a, 3]: Python [1, 2, 3], executor [[1, 2], 3]
too few: Python 'TypeError', executor 1
too many: Python 'TypeError', executor 1"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
