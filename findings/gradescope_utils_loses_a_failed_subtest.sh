#!/bin/bash
# gradescope-utils 0.5.0: a test with a failing subTest isn't in the results: no 0, no points to reach, no message.
#
# Guess: a test worth 5 points whose second subTest fails stands in the results with 0 of 5, as it would with a plain
# assertion; a skipped one with 0, too.
# Seen: of three tests with 1, 2 and 5 points the results hold two, and the 5 are in no sum. unittest tells a runner of
# a failed subTest in another way (addSubTest), which JSONTestRunner doesn't listen to, and a success is never told. A
# skipped test is missing as well. The line for the terminal says FAILED (failures=2).
#
# Where it matters: a grader that checks many inputs in one test with subTest, as unittest's documentation shows it. The
# student sees 1 of 3 points for 1 of 8, and not what went wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gradescope-utils==0.5.0
cat > "$folder/ask.py" <<'PYTHON'
import io
import json
import unittest

from gradescope_utils.autograder_utils.decorators import weight
from gradescope_utils.autograder_utils.json_test_runner import JSONTestRunner


class Tests(unittest.TestCase):
    @weight(1)
    def test_right(self):
        self.assertEqual(2, 2)

    @weight(2)
    def test_wrong(self):
        self.assertEqual(1, 2)

    @weight(5)
    def test_many(self):
        for n in (2, 3, 4):
            with self.subTest(n=n):
                self.assertEqual(n % 2, 0)


told = io.StringIO()
result = JSONTestRunner(stream=told, visibility="visible").run(unittest.defaultTestLoader.loadTestsFromTestCase(Tests))
results = json.loads(told.getvalue())
print("failures", len(result.failures), "of", result.testsRun, "tests")
for test in results["tests"]:
    print(test["name"].split()[0], test["score"], "of", test["max_score"])
print("in all", results["score"])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="failures 2 of 3 tests
test_right 1 of 1
test_wrong 0.0 of 2
in all 1.0"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
