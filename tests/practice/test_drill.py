"""`python course.py drill`, as a user meets it."""

import json
import os
import subprocess
import sys

import pytest
from practice.sessions import at_a_terminal, piped

from autograde.repository import ROOT

posix = pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal is needed")
DRILL = "autograde.practice.drill"


def stored(home) -> dict[str, list[int]]:
    cards = json.loads((home / "drill.json").read_text(encoding="utf-8"))
    return {name: [rating for _, rating in one["ratings"]] for name, one in cards.items()}


def test_questions_then_answers_then_ratings_through_a_pipe(tmp_path):
    told = piped(DRILL, ["--topic", "T06", "--new", "2"], "\n3\n\n1\n", tmp_path / "home", tmp_path)
    assert told.returncode == 0 and told.stderr == ""
    question, answer = "Why do Transformer blocks use LayerNorm", "LayerNorm takes mean and variance"
    assert told.stdout.index(question) < told.stdout.index(answer) < told.stdout.index("Next time: in 10 min.")
    assert "Done for now: 2 rated." in told.stdout and str(tmp_path / "home" / "drill.json") in told.stdout
    assert stored(tmp_path / "home") == {"T06": [3], "T06.f1": [1]}


def test_chinese_from_the_first_word_to_the_last(tmp_path):
    told = piped(DRILL, ["--lang", "zh", "--topic", "rope", "--new", "1"], "\n4\n", tmp_path / "home", tmp_path).stdout
    assert "位置编码有哪些？" in told and "先出声回答" in told and "下次：" in told and "评了 1 张" in told
    assert "Answer aloud" not in told


def test_an_answer_stays_hidden_until_it_is_asked_for(tmp_path):
    told = piped(DRILL, ["--topic", "T06"], "x\nq\n", tmp_path / "home", tmp_path).stdout
    assert "Why do Transformer blocks" in told and "LayerNorm takes mean" not in told
    assert "Done for now: 0 rated." in told and not (tmp_path / "home" / "drill.json").exists()


def test_when_nothing_is_due_it_says_when(tmp_path):
    home = tmp_path / "home"
    piped(DRILL, ["--topic", "T06", "--new", "1"], "\n4\n", home, tmp_path)
    again = piped(DRILL, ["--topic", "T06", "--new", "0"], "", home, tmp_path).stdout
    assert "Nothing is due. Next: in 8 days." in again


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--lang", "fr"], 2, "invalid choice: 'fr'"),
        (["--new", "-1"], 2, "takes 0 or more"),
        (["--new", "many"], 2, "invalid int value"),
        (["--topic", "rop"], 1, "there is no topic 'rop': did you mean rope?"),
    ],
)
def test_bad_options_get_one_sentence(tmp_path, arguments, code, told):
    run = piped(DRILL, arguments, "", tmp_path / "home", tmp_path)
    assert run.returncode == code and told in run.stderr and run.stderr.count("\n") == 1 and run.stdout == ""


@posix
def test_single_keys_at_a_terminal_and_ctrl_c_keeps_what_was_rated(tmp_path):
    child = at_a_terminal(DRILL, ["--topic", "T06"], tmp_path / "home", tmp_path)
    child.expect("Answer aloud")
    child.send("\r")
    child.expect("How did it go")
    child.send("x3")
    child.expect("Next time")
    child.expect("Answer aloud")
    child.sendintr()
    child.expect("Done for now: 1 rated")
    child.wait()
    assert child.exitstatus == 0 and stored(tmp_path / "home") == {"T06": [3]}


def test_it_starts_without_torch():
    program = f"import sys, {DRILL} as drill; drill.drill_on(None).following(5); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
