"""`python course.py interview`, as a candidate meets it; and what it draws."""

import json
import os
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from practice.sessions import at_a_terminal, piped

from autograde.practice.deck import cards, the_bank
from autograde.practice.draw import draw
from autograde.practice.schedule import Drill
from autograde.practice.session import Clock, Interview
from autograde.practice.tasks import tasks

posix = pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal is needed")
INTERVIEW = "autograde.practice.interview"
BANK, TASKS = the_bank(), tasks()
MASK = next(task for task in TASKS if task.name == "causal_mask")
RIGHT = "def causal_mask(n, past=0):\n    return torch.ones(n, past + n, dtype=torch.bool).tril(past)\n"
WRONG = RIGHT.replace("tril(past)", "tril(past + 1)")
NAMED = "each token also sees the next one"
ON_MASKS = ["--topic", "01_attention", "--difficulty", "easy", "--folder", "out"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABKIT_NO_PROGRESS", raising=False)
    return tmp_path / "home"


def drawing(seed=0, results=(), past=(), topic=None, difficulty=None, rated=()):
    drill = Drill(cards(BANK))
    for name, rating in rated:
        drill.rate(name, rating)
    return draw(TASKS, BANK, drill, dict(results), list(past), seed, topic, difficulty)


def seed_of(name: str) -> str:
    return next(str(seed) for seed in range(99) if drawing(seed, (), (), "01_attention", "easy").task.name == name)


def interviews(home) -> dict:
    return json.loads((home / "interviews.json").read_text(encoding="utf-8"))


def written(tmp_path, code: str) -> None:
    file = tmp_path / "out" / "causal_mask.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: text.index("def causal_mask")] + code, encoding="utf-8")


# -- at a terminal --------------------------------------------------------------------------------------------


@posix
def test_a_wrong_solution_is_named_after_done_and_not_before(tmp_path, home):
    child = at_a_terminal(INTERVIEW, [*ON_MASKS, "--seed", seed_of("causal_mask")], home, tmp_path)
    child.expect("Enter starts the clock")
    assert not (tmp_path / "out").exists()
    child.send("\r")
    child.expect("26:5[0-9] left")
    written(tmp_path, WRONG)
    child.send("x")
    child.expect("26:5[0-9] left")
    assert NAMED not in child.before
    child.send("d")
    child.expect(NAMED)
    child.expect("Answer aloud")
    child.send("\r")
    child.expect("Numbers with spaces")
    child.sendline("99 1")
    child.expect("Numbers from 1 to")
    child.sendline("1 2")
    child.expect("How did it go")
    child.send("1")
    child.expect("Answer aloud")
    child.send("\r")
    child.expect("Numbers with spaces")
    child.sendline("a")
    child.expect("How did it go")
    child.send("4")
    child.expect("A senior interviewer would ask next")
    child.expect("Solve it in the chapter")
    child.expect("The page: ")
    child.wait()
    assert child.exitstatus == 0
    stored = interviews(home)
    (past,) = stored["past"]
    assert stored["current"] is None and past["task"] == "causal_mask" and NAMED in past["result"]["told"]
    assert past["result"]["earned"] < past["result"]["points"] == 2.0
    assert [answer["rating"] for answer in past["answers"]] == [1, 4]
    assert set(json.loads((home / "drill.json").read_text(encoding="utf-8"))) == set(past["questions"])
    page = (tmp_path / "out" / "review.html").read_text(encoding="utf-8")
    assert NAMED in page and "<details>" in page and "http" not in page.split("</style>")[0]
    assert past["questions"][0] in page and "--topic " + past["questions"][0] in page
    assert "--topic " + past["questions"][1] not in page  # rated easy, every point told


def test_a_right_solution_and_two_good_answers_need_no_repeating(tmp_path, home):
    seed = seed_of("causal_mask")
    arguments = [*ON_MASKS, "--seed", seed]
    first = piped(INTERVIEW, arguments, "\nq\n", home, tmp_path)
    assert first.returncode == 0 and "Paused and kept" in first.stdout
    written(tmp_path, RIGHT)
    told = piped(INTERVIEW, ["--lang", "zh"], "c\nd\n\na\n3\n\na\n4\n", home, tmp_path)
    assert told.returncode == 0 and told.stderr == ""
    assert "is not finished: causal_mask" in told.stdout and "causal_mask: 2 of 2 points" in told.stdout
    assert "Nothing needs repeating today" in told.stdout
    again = piped(INTERVIEW, [*ON_MASKS[:-1], "other", "--seed", seed], "q\n", home, tmp_path)
    assert "is not finished" not in again.stdout and not (tmp_path / "other").exists()


@posix
def test_an_unfinished_solution_when_the_time_is_over(tmp_path, home):
    minutes = ["--minutes", "0.04", "--lang", "zh"]
    child = at_a_terminal(INTERVIEW, [*ON_MASKS, "--seed", seed_of("causal_mask"), *minutes], home, tmp_path)
    child.expect("按 Enter 开始计时")
    child.send("\r")
    child.expect("时间到。")
    assert "not implemented yet" not in child.before
    child.expect("causal_mask: not implemented yet")
    child.expect("时间到。")  # of the first question, too; its points are shown
    child.expect("30 秒回答")
    child.expect("用空格隔开")
    child.sendintr()
    child.expect("已暂停并保存")
    child.wait()
    current = interviews(home)["current"]
    assert current["stage"] == 1 and current["result"]["earned"] == 0


@posix
def test_ctrl_c_keeps_the_clock_and_the_code(tmp_path, home):
    child = at_a_terminal(INTERVIEW, [*ON_MASKS, "--seed", seed_of("causal_mask")], home, tmp_path)
    child.expect("Enter starts")
    child.send("\r")
    child.expect("left")
    written(tmp_path, WRONG)
    child.sendintr()
    child.expect("Paused and kept")
    child.wait()
    current = interviews(home)["current"]
    assert child.exitstatus == 0 and current["stage"] == 0 and 0 < current["spent"][0] < 60
    assert WRONG in (tmp_path / "out" / "causal_mask.py").read_text(encoding="utf-8")
    assert "q ends" in piped(INTERVIEW, [], "q\n", home, tmp_path).stdout
    assert interviews(home)["current"] == current


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--difficulty", "brutal"], 2, "invalid choice: 'brutal'"),
        (["--minutes", "0"], 2, "more than 0 and at most 240"),
        (["--minutes", "nan"], 2, "more than 0 and at most 240"),
        (["--folder", "full"], 2, "isn't an empty folder"),
        (["--topic", "ropes"], 1, "did you mean rope?"),
        (["--topic", "04_rope", "--difficulty", "easy"], 1, "is easy: there are medium, hard."),
    ],
)
def test_bad_options_get_one_sentence_and_write_nothing(tmp_path, home, arguments, code, told):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    run = piped(INTERVIEW, arguments, "", home, tmp_path)
    assert run.returncode == code and told in run.stderr and run.stderr.count("\n") == 1
    assert not home.exists() and [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("content", ["{", '{"current": {"task": 1}}', '{"past": [{}]}', '{"current": 3}'])
def test_a_damaged_file_is_set_aside(tmp_path, home, content):
    home.mkdir()
    (home / "interviews.json").write_text(content)
    run = piped(INTERVIEW, ["--topic", "rope", "--seed", "1"], "q\n", home, tmp_path)
    assert run.returncode == 0 and "Drawn with seed 1" in run.stdout
    assert (home / "interviews.damaged.json").read_text() == content


# -- the draw -------------------------------------------------------------------------------------------------


def test_one_seed_draws_the_same_again_and_others_draw_others():
    assert drawing(5) == drawing(5)
    assert len({drawing(seed).task.name for seed in range(30)}) > 15


def test_topic_and_difficulty_are_kept_to():
    for seed in range(20):
        drawn = drawing(seed, topic="applications", difficulty="hard")
        assert drawn.task.difficulty == "hard" and drawn.task.chapter.startswith("02_")
        assert all(name.startswith("A") for name in drawn.questions) and len(set(drawn.questions)) == 2
        assert drawing(seed, topic="T06").questions[0] == "T06"
        assert drawing(seed, topic="rope").task.chapter == "01_transformer/04_rope"


def test_the_first_question_belongs_to_the_task():
    for seed in range(20):
        drawn = drawing(seed)
        assert drawn.task.chapter in BANK.questions[drawn.questions[0]]["exercises"]


def shares(**known) -> Counter:
    return Counter(drawing(seed, topic="04_rope", **known).task.name for seed in range(200))


def test_what_was_weak_is_drawn_more_often_and_the_line_says_why():
    even = shares()["apply_rope"]
    assert shares(results={"apply_rope": (1.0, 4.0)}.items())["apply_rope"] > 1.5 * even
    assert shares(results={"apply_rope": (4.0, 4.0)}.items())["apply_rope"] < 0.6 * even
    failed = {"task": "apply_rope", "result": {"earned": 0.0, "points": 4.0}, "questions": ["T04", "T05"]}
    assert shares(past=[failed])["apply_rope"] > 2.5 * even
    drawn = next(d for seed in range(99) if (d := drawing(seed, past=[failed], topic="rope")).task.name == "apply_rope")
    assert "apply_rope (" in drawn.why and "unsolved in an earlier interview" in drawn.why and "\n" not in drawn.why


def test_a_question_rated_again_comes_more_often():
    before = sum("T09" in drawing(seed).questions for seed in range(150))
    after = sum("T09" in drawing(seed, rated=[("T09", 1)] if seed == 0 else ()).questions for seed in range(150))
    assert after > 1.5 * before
    assert any("T09 (rated again last time)" in drawing(seed).why for seed in range(150))


# -- the clock ------------------------------------------------------------------------------------------------


def test_the_clock_counts_what_was_used_and_keeps_it_now_and_then():
    now, kept = [100.0], []
    drawn = replace(drawing(0), task=MASK)
    interview = Interview.of(drawn, 0, "en", 45, Path("x.py"), datetime(2026, 11, 28, tzinfo=UTC))
    assert [interview.limit(stage) for stage in range(3)] == pytest.approx([27 * 60, 9 * 60, 9 * 60])
    clock = Clock(interview, lambda: kept.append(interview.spent[0]), lambda: now[0])
    for seconds in (10, 10, 600):
        now[0] += seconds
        clock.left()
    assert kept == [20.0, 620.0] and clock.left() == pytest.approx(27 * 60 - 620)
    now[0] += 5000  # a pause: another process goes on with what was kept
    assert Clock(interview, kept.clear, lambda: now[0]).left() == pytest.approx(27 * 60 - 620)


def test_the_draw_leaves_the_global_dice_alone():
    random.seed(1)
    before = random.getstate()
    drawing(3)
    assert random.getstate() == before
