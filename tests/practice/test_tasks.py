"""The coding tasks: how hard they are, and that each file has all that its task needs."""

from collections import Counter

import pytest

from autograde import exercises
from autograde.authoring.chapter import read
from autograde.authoring.scopes import _ALWAYS as BUILT_IN
from autograde.practice import tasks as tasks_
from autograde.practice.checking import check_file
from autograde.practice.tasks import DIFFICULTIES, task_file, tasks
from autograde.regions import unmarked
from autograde.repository import ROOT
from labkit.notebook import used_and_defined

TASKS = {task.name: task for task in tasks()}


def solved(task) -> str:
    """The task's file with the course's own solution in the place of the stub."""
    cell = next(cell for cell in read(ROOT, task.chapter).of("exercise") if cell.name == task.name)
    text, first = task_file(task), cell.source.splitlines()[0]
    return text[: text.rindex(first)] + unmarked(cell.source) + "\n"


def test_every_exercise_of_a_chapter_with_questions_is_a_task_with_its_points():
    chapters = {name: chapter for name, chapter in exercises.names().items() if chapter != "start_here"}
    assert set(TASKS) == set(chapters)
    for name, task in TASKS.items():
        exercise = exercises.find(name)
        assert task.points == exercise.points, name
        level = 2 if exercise.ranks or task.points > 3 else task.points - 2
        assert task.difficulty == DIFFICULTIES[level], name
    assert min(Counter(task.difficulty for task in TASKS.values()).values()) > 30


@pytest.mark.parametrize("chapter", sorted({task.chapter for task in TASKS.values()}))
def test_a_tasks_file_defines_or_imports_all_that_it_names_and_gives_nothing_away(chapter):
    cells = [cell for cell in read(ROOT, chapter).cells if cell.kind in ("setup", "exercise")]
    whole = (ROOT / "solutions" / f"{chapter}.py").read_text(encoding="utf-8")
    assert tasks_._cells(whole) == [(cell.name, cell.source) for cell in cells]  # as the reader for authors reads it
    for task in (one for one in TASKS.values() if one.chapter == chapter):
        text = task_file(task)
        missing, defined = used_and_defined(text)
        assert missing <= BUILT_IN | {"__file__"}, task.name
        assert task.name in defined and text.endswith("raise NotImplementedError\n"), task.name
        assert text.count("# YOUR CODE HERE") >= 1 and "SOLUTION" not in text, task.name
        missing, _ = used_and_defined(solved(task))
        assert missing <= BUILT_IN | {"__file__"}, task.name


# One that builds on an earlier exercise, and one that runs on ranks.
@pytest.mark.parametrize("name", ["multi_head_attention", "ring_all_gather"])
def test_the_solution_in_the_file_gets_all_points(tmp_path, name):
    file = tmp_path / f"{name}.py"
    file.write_text(solved(TASKS[name]), encoding="utf-8")
    result = check_file(file, name)
    assert (result["earned"], result["status"], result["told"]) == (TASKS[name].points, "solved", ""), result["text"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def causal_mask(n):\n  return\n  )", r"does not run, line 3: SyntaxError"),
        ("import os\n\n1 / 0", "does not run, line 3: ZeroDivisionError"),
        ("raise SystemExit", "does not run, line 1: SystemExit"),
        ("causal = 1", "defines no `causal_mask`"),
        ("import os; os._exit(3)", "broke off"),
        ("while True: pass", "did not end within"),
        ("def causal_mask(*given, **named):\n    raise NotImplementedError", "not implemented yet"),
    ],
)
def test_a_file_that_cant_be_checked_is_told_in_one_sentence(tmp_path, text, told):
    file = tmp_path / "causal_mask.py"
    file.write_text(text, encoding="utf-8")
    result = check_file(file, "causal_mask", patience=3 if "while" in text else 60)
    assert told in result["told"] and result["earned"] == 0 and "\n" not in result["told"]


def test_a_file_that_is_gone_is_told(tmp_path):
    assert "is not there" in check_file(tmp_path / "none.py", "causal_mask")["told"]


def test_without_the_chapters_one_sentence_says_so(tmp_path):
    with pytest.raises(ValueError, match="needs the folder of the whole course"):
        tasks(tmp_path)
