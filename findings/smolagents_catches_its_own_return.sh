#!/bin/bash
# smolagents 1.26.0: in an agent's code `return` within try ... except Exception ends in the except branch.
#
# Guess: LocalPythonExecutor runs plain Python as Python does, or refuses it ("Yield is not supported"): a function that
# tries and returns 1 returns 1, and break leaves the loop.
# Seen: return, break and continue are exceptions inside the executor, and `except Exception`, or a bare except, catches
# them. The function returns what the except branch returns, the loop goes on, and the message in the error variable is
# the returned value. `except ValueError` is right. Issue 1688 of 2025, closed.
#
# Where it matters: models write exactly this around a tool call: try to read the page and return it, else return "not
# found". The tool works, and the agent is told that it failed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check smolagents==1.26.0
cat > "$folder/ask.py" <<'PYTHON'
from smolagents.local_python_executor import LocalPythonExecutor

programs = {
    "return": """
def price():
    try:
        return 10
    except Exception as error:
        return f"failed: {error}"
answer = price()
""",
    "return, except ValueError": """
def price():
    try:
        return 10
    except ValueError:
        return "failed"
answer = price()
""",
    "break": """
answer = []
for n in range(4):
    try:
        if n == 2:
            break
    except Exception:
        pass
    answer.append(n)
""",
    "continue": """
answer = []
for n in range(3):
    try:
        if n == 1:
            continue
        answer.append(n)
    except:
        answer.append("failed")
""",
}
for name, program in programs.items():
    names = {}
    exec(program, names)
    executor = LocalPythonExecutor(additional_authorized_imports=[])
    executor.send_tools({})
    print(f"{name}: Python {names['answer']!r}, executor {executor(program + 'answer').output!r}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="return: Python 10, executor 'failed: 10'
return, except ValueError: Python 10, executor 10
break: Python [0, 1], executor [0, 1, 2, 3]
continue: Python [0, 2], executor [0, 'failed', 2]"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
