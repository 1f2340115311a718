"""What takes a second to import and is hardly ever asked is imported when it is asked."""

from __future__ import annotations

import subprocess
import sys

COMMAND = """
import sys
from autograde import cli
assert cli.main(["export", "no-section", "--course", sys.argv[1]]) == 1
assert "jsonschema" in sys.modules and "rfc3987_syntax.syntax_helpers" not in sys.modules
assert "rfc3987_syntax" not in sys.modules
from jsonschema import FormatChecker
asked = [FormatChecker().conforms(text, "iri") for text in ("http://例子.中国/ä", "no IRI", "http://b")]
assert asked == [True, False, True]
import rfc3987_syntax
assert rfc3987_syntax.__file__ and "rfc3987_syntax.syntax_helpers" in sys.modules
"""


def test_a_command_compiles_no_grammar_and_iris_are_checked_all_the_same(tmp_path):
    ran = subprocess.run([sys.executable, "-c", COMMAND, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
