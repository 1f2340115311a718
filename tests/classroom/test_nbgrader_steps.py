"""nbgrader with this course's steps: what a submission may change, and which outputs are believed.

The notebook of this class is small and needs no torch: an exercise is solved by giving its name a number, which is what
its check ends in.
"""

from __future__ import annotations

import html
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from toy_course import feedback, nbgrader_api, score, scores

from autograde.authoring.cells import nbgrader_marks as marks
from autograde.classroom.steps import BelieveNumbersOnly, seed_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm")]
SECTION, CHAPTER = "01_one", "01_chapter"
NAMES = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
POINTS, TOTAL = 2.0, 16.0
TIMEOUT = 6


def source() -> nbformat.NotebookNode:
    """The teacher's notebook: setup, a demo, and eight exercises of two points each."""
    cells = [
        new_markdown_cell("# A chapter"),
        code("import os, sys", grade_id="setup", locked=True),
        new_code_cell("sys.exit('a demo was run')", metadata={"tags": ["demo"]}),
    ]
    for name in NAMES:
        cells.append(code(f"### BEGIN SOLUTION\n{name} = 2.0\n### END SOLUTION", grade_id=name, solution=True))
        hidden = "### BEGIN HIDDEN TESTS\n'the secret half'\n### END HIDDEN TESTS"
        cells.append(code(f"{hidden}\n{name}", f"check_{name}", True, locked=True))
        cells[-1].metadata.nbgrader["points"] = POINTS
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def code(text: str, grade_id: str, grade: bool = False, **options) -> nbformat.NotebookNode:
    return new_code_cell(text, metadata={"nbgrader": marks(grade_id, grade, **options)})


class Submission:
    def __init__(self, release: Path, answers: dict[str, str]):
        self.cells = nbformat.read(release, as_version=4).cells
        for name, text in answers.items():
            self.cell(name).source = f"{name} = {text}" if "=" not in text else text

    def cell(self, name: str):
        return next(c for c in self.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)

    def add(self, text: str, before: str, **metadata) -> Submission:
        self.cells.insert(self.cells.index(self.cell(before)), new_code_cell(text, metadata=metadata))
        return self

    def hand_in(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        encoding = getattr(self, "encoding", "utf-8")
        kernel = {"display_name": "Mine", "language": "python", "name": "mine"}
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": self.cells}
        (folder / f"{CHAPTER}.ipynb").write_text(json.dumps(notebook), encoding)  # as it is, valid or not


def delete_tests(s: Submission) -> None:
    s.cells = [c for c in s.cells if not c.metadata.get("nbgrader", {}).get("grade")]


def edit_tests(s: Submission) -> None:
    for name in NAMES:
        s.cell(f"check_{name}").source = "2.0"
        s.cell(f"check_{name}").metadata.nbgrader.update(points=1000, solution=True, grade=False, locked=False)


def smuggle(s: Submission) -> None:
    for cell in s.cells:
        cell.metadata.tags = ["skip-execution"]
        if cell.cell_type == "code":
            cell.outputs = [new_output("execute_result", {"text/plain": "2.0"}, execution_count=1)]


def reorder(s: Submission) -> None:
    s.cells = s.cells[::-1] + [nbformat.from_dict(dict(cell)) for cell in s.cells[:8]]


def garble(s: Submission) -> None:
    for cell in s.cells:
        if cell.metadata.get("nbgrader", {}).get("grade") or not cell.metadata.get("nbgrader"):
            cell.metadata = nbformat.from_dict({"nbgrader": "mine", "tags": 5})
            cell.pop("id", None)


def move_a_solution(s: Submission) -> None:
    s.add("three = 2.0", before="three")
    s.cells.remove(s.cell("three"))


def copy_a_solution(s: Submission) -> None:
    s.add("three = 2.0", before="check_three", nbgrader=dict(s.cell("three").metadata.nbgrader))
    s.cell("three").source = "raise NotImplementedError"


def add_helpers(s: Submission) -> None:
    s.add("def helper():\n    return 2.0", before="two").cell("two").source = "two = helper()"


def change_everything(s: Submission) -> None:
    """What tests/classroom/test_readers.py does one by one, in a file of another encoding."""
    s.encoding = "utf-16"
    s.cell("one")["cell_type"] = "markdown"
    del s.cell("one")["outputs"], s.cell("one")["execution_count"]
    s.cells[2].source += "\ndef help_two(): return 2.0"
    s.cell("two").source = "two = help_two()"
    s.cells.append(new_code_cell("def help_three(): return 2.0"))
    s.cell("three").source = "def last_three(): return help_three()\nthree = last_three()"
    s.cell("four").source = "%%time\n%time four = 2.0"
    s.cell("eight").source = "!true\nfrom __future__ import annotations\neight = 2.0"
    s.add("raise NotImplementedError", before="check_five", nbgrader=dict(s.cell("five").metadata.nbgrader))
    s.cell("six").source += "\nseven = 2.0"
    s.cells.remove(s.cell("seven"))


def strip(s: Submission) -> None:
    for cell in s.cells:
        cell.metadata = {}
        del cell["id"]


SOLVED = dict.fromkeys(NAMES, "2.0")
WARNING = "import os\nimport sys\none = 2.0\nprint('careful', file=sys.stderr)\nos.write(2, b'careful')"
MARKUP = """\
from IPython.display import HTML, Javascript, display
one = 2.0
display(HTML('<script>stolen(1)</script>'), Javascript('stolen(2)'), {'text/markdown': '<script>stolen(3)</script>'})
print('<script>stolen(4)</script>')
class Named(Exception): pass
Named.__name__ = '<script>stolen(5)</script>'
raise Named('<script>stolen(6)</script>')"""
UNBELIEVABLE = {
    "one": "'everything'",
    "two": "None",
    "three": "99.0",
    "four": "-1.0",
    "five": "float('nan')",
    "six": "True",
    "seven": "[2.0]",
    "eight": "del two  # = a name the check needs: NameError",
}
# Tells the seed, which is as good as all hidden inputs, in every way that a cell has.
TELLING = """\
import os, sys, pathlib
from IPython.display import display
seed = os.environ['AUTOGRADE_SEED']
one = 2.0
print(seed)
print(seed, file=sys.stderr)
os.write(1, seed.encode())
display({'text/plain': seed, 'text/html': seed, 'text/markdown': seed, seed: seed}, raw=True)
pathlib.Path('told.txt').write_text(seed)
pathlib.Path('told').mkdir()
pathlib.Path('told', seed).write_text('')
get_ipython().execution_count = 73519_73519
raise type(seed, (Exception,), {})(seed)"""
TELLING_LATER = """\
class Told(float):
    def __repr__(self):
        print(seed)
        return seed
two = Told(2.0)
three = type(seed, (list,), {})(seed)
get_ipython().display_formatter.format = lambda *a, **k: ({'text/plain': '2.0', 'x/y': seed}, {'said': seed})
del four
raise NameError(f"name {seed!r} is not defined")"""
STUCK = "four = 2.0\nimport signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(0.1)"
CLASS = {
    "solved": (SOLVED, None),
    "solved-deleted": (SOLVED, delete_tests),
    "solved-edited": (SOLVED, edit_tests),
    "solved-smuggled": (SOLVED, smuggle),
    "solved-reordered": (SOLVED, reorder),
    "solved (O'Neil, 张伟)": (SOLVED, garble),
    "solved-moved": (SOLVED, move_a_solution),
    "solved-copied": (SOLVED, copy_a_solution),
    "solved-helpers": (SOLVED, add_helpers),
    "solved-changed": (SOLVED, change_everything),
    "solved-stripped": (SOLVED, strip),
    "solved-warning": (SOLVED | {"one": WARNING}, None),
    "solved-markup": (SOLVED | {"one": MARKUP}, None),
    "unsolved": ({}, None),
    "unsolved-edited": ({}, edit_tests),
    "unsolved-smuggled": ({}, smuggle),
    "unsolved-believed": (UNBELIEVABLE, None),
    "telling": ({"one": TELLING, "two": TELLING_LATER, "five": "{}[os.environ['AUTOGRADE_SEED']]"}, None),
    "solved-seeded": (SOLVED | {"one": "one = 2.0 if os.environ['AUTOGRADE_SEED'] == '@SEED@' else 0.0"}, None),
    "partly": (SOLVED | {"one": "0.5", "two": "0", "three": "1"}, None),
    "slow": (SOLVED | {"four": "import time\nwhile True: time.sleep(0.1)  # four = 2.0"}, None),
    "stuck": (SOLVED | {"four": STUCK}, None),
    "dead": (SOLVED | {"four": "os._exit(0)  # four = 2.0"}, None),
}
EXPECTED = {"partly": TOTAL - 4.5, "slow": TOTAL - POINTS, "stuck": 3 * POINTS, "dead": 3 * POINTS}


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class")
    (folder / "source" / SECTION).mkdir(parents=True)
    nbformat.write(source(), folder / "source" / SECTION / f"{CHAPTER}.ipynb")
    (folder / "secret").write_text("a secret")
    return nbgrader_api(folder, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def graded(api):
    """The course folder after the whole class went through generate, autograde and feedback."""
    folder = Path(api.coursedir.root)
    assert api.generate_assignment(SECTION)["success"]
    for student, (answers, change) in CLASS.items():
        seed = seed_of(folder, student, SECTION, CHAPTER)
        answers = {name: text.replace("@SEED@", seed) for name, text in answers.items()}
        submission = Submission(folder / "release" / SECTION / f"{CHAPTER}.ipynb", answers)
        if change:
            change(submission)
        submission.hand_in(folder / "submitted" / student / SECTION)
    failed = {student: r["log"] for student in CLASS if not (r := api.autograde(SECTION, student))["success"]}
    assert not failed, "\n".join(failed.values())
    assert api.generate_feedback(SECTION)["success"]
    return folder


def autograded(folder: Path, student: str) -> str:
    return (folder / "autograded" / student / SECTION / f"{CHAPTER}.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("student", [s for s in CLASS if s.startswith("solved")])
def test_solutions_earn_all_points_whatever_happened_around_them(graded, student):
    assert score(graded, SECTION, student) == TOTAL


@pytest.mark.parametrize("student", [s for s in CLASS if s.startswith("unsolved")])
def test_nothing_else_earns_a_point(graded, student):
    assert score(graded, SECTION, student) == 0


@pytest.mark.parametrize("student", EXPECTED)
def test_one_cell_costs_what_depends_on_it(graded, student):
    assert score(graded, SECTION, student) == EXPECTED[student], scores(graded, SECTION, student)


def test_feedback_says_why_a_cell_earned_nothing(graded):
    assert f"this cell ran for more than {TIMEOUT} seconds" in feedback(graded, SECTION, "slow")
    assert "name 'four' is not defined" in html.unescape(feedback(graded, SECTION, "slow"))
    for student in ("stuck", "dead"):
        assert "an earlier cell crashed, or could not be stopped" in feedback(graded, SECTION, student)


def test_feedback_and_release_have_no_hidden_test(graded):
    pages = [feedback(graded, SECTION, student) for student in CLASS]
    pages.append((graded / "release" / SECTION / f"{CHAPTER}.ipynb").read_text(encoding="utf-8"))
    for text in map(html.unescape, pages):
        assert "the secret half" not in text and "HIDDEN" not in text
    assert "the secret half" in autograded(graded, "solved"), "the search would find it"


def test_no_word_of_a_cell_is_kept(graded):
    cells = nbformat.reads(autograded(graded, "solved-markup"), as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs and "stolen" not in json.dumps(outputs) and "This cell raised an error." in json.dumps(outputs)
    assert "<script>stolen" not in feedback(graded, SECTION, "solved-markup")


def test_what_a_cell_knows_of_the_hidden_tests_is_found_nowhere(graded):
    seed = seed_of(graded, "telling", SECTION, CHAPTER)
    files = [path for kind in ("autograded", "feedback") for path in (graded / kind / "telling").rglob("*")]
    names = {path.name for path in files if path.is_file()} - {"timestamp.txt"}
    assert names == {f"{CHAPTER}.ipynb", f"{CHAPTER}.html"}
    for path in files:
        text = html.unescape(path.read_text(encoding="utf-8")) if path.is_file() else path.name
        assert seed not in text and "7351973519" not in text, path
    notebook = nbformat.reads(autograded(graded, "telling"), as_version=4)
    assert not any("execution" in cell.metadata for cell in notebook.cells), "times"


def test_the_seed_comes_from_the_secret_and_differs_between_students(graded):
    seeds = {student: seed_of(graded, student, SECTION, CHAPTER) for student in CLASS}
    assert len(set(seeds.values())) == len(CLASS)
    assert scores(graded, SECTION, "solved-seeded")["check_one"] == POINTS, "the kernel has it"


def test_a_regrade_repeats_seed_and_scores(api, graded):
    for student in ("partly", "solved-seeded"):
        before = scores(graded, SECTION, student)
        assert api.autograde(SECTION, student, force=True)["success"]
        assert scores(graded, SECTION, student) == before


def test_without_the_secret_nothing_is_graded(api, graded):
    (graded / "secret").rename(graded / "moved")
    try:
        result = api.autograde(SECTION, "partly", force=True)
    finally:
        (graded / "moved").rename(graded / "secret")
    assert not result["success"]
    assert "secret is missing. Put it back" in result["log"]
    assert api.autograde(SECTION, "partly", force=True)["success"]


def test_points_that_were_changed_after_the_release_scale_what_a_check_says():
    step = BelieveNumbersOnly()
    step.released = {"check_one": 2.0}
    for now, said, worth in ((1.0, "1.5", 0.75), (4.0, "2.0", 4.0), (0.0, "2.0", 0.0), (1.0, "2.5", 0.0)):
        cell = code("one", "check_one", True, locked=True)
        cell.metadata.nbgrader["points"] = now
        cell.outputs = [new_output("execute_result", {"text/plain": said}, execution_count=1)]
        step.preprocess_cell(cell, {}, 0)
        assert cell.outputs[-1].data["text/plain"] == str(worth)
