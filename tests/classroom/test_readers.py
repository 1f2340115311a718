"""One notebook as learners leave it, in many variants: `own` and grading take the same solutions from each.

What nbgrader's own run does with the same steps is in test_nbgrader_steps.py.
"""

from __future__ import annotations

import copy
import json

import pytest

import labkit.parts
from autograde.authoring.cells import nbgrader_marks as marks
from autograde.classroom.inside.worker import _Notebook
from autograde.classroom.submission import cells_of, outline, take
from labkit import PartMissing, notebook, own
from labkit.notebook import Reading

CHAPTER = "one_section/a_chapter"
SETUP = "import math\nfrom autograde import check"
DEMO = "shown = 3\n\ndef halved(x):\n    return x / 2\n\nraise SystemExit('a demo was run')"
DOUBLE = "def double(x):\n    y = x\n    return y + x"
SQUARED = "def squared_double(x):\n    return double(x) ** 2"
NAMES = ["double", "squared_double"]
STUBS = {name: f"def {name}(x):\n    # YOUR CODE HERE\n    raise NotImplementedError" for name in NAMES}
WANTED = {"double": 6, "squared_double": 36}
HELPED = "def double(x):\n    return helper(x)"
HELPER = "def helper(x):\n    return x + x"


def cell(source: str, name: str = "", tag: str = "", **options) -> dict:
    metadata = {"tags": [tag]} if tag else {}
    if name:
        metadata["nbgrader"] = marks(name, **options)
    return {"cell_type": "code", "id": f"id-{name or tag}", "metadata": metadata, "outputs": [], "source": source}


def source() -> list[dict]:
    """The teacher's notebook."""
    checks = {name: cell(f"check({name})", f"check_{name}", "check", grade=True, locked=True) for name in STUBS}
    for check in checks.values():
        check["metadata"]["nbgrader"]["points"] = 1
    exercises = {name: cell(stub, name, "exercise", solution=True) for name, stub in STUBS.items()}
    pairs = [each for name in STUBS for each in (exercises[name], checks[name])]
    return [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A chapter"},
        cell(SETUP, "setup", "setup", locked=True),
        cell(DEMO, tag="demo"),
        *pairs,
    ]


class Learner:
    """The release, with both exercises solved."""

    def __init__(self):
        self.nb = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": source()}
        self.write(double=DOUBLE, squared_double=SQUARED)
        self.encode = lambda text: text.encode()

    @property
    def cells(self) -> list[dict]:
        return self.nb["cells"]

    def __getitem__(self, name: str) -> dict:
        return next(c for c in self.cells if c["id"] == f"id-{name}")

    def write(self, **sources: str) -> None:
        for name, text in sources.items():
            self[name]["source"] = text

    def put(self, source: str, after: str = "", before: str = "", like: str = "", kind: str = "code") -> None:
        """A new cell; `like` is that whose metadata it has, as a copy has."""
        new = cell(source) | {"id": f"new-{len(self.cells)}", "cell_type": kind}
        new["metadata"] = copy.deepcopy(self[like]["metadata"]) if like else {}
        place = self.cells.index(self[after or before]) + bool(after) if after or before else len(self.cells)
        self.cells.insert(place, new)

    def remove(self, name: str) -> None:
        self.cells.remove(self[name])

    def content(self) -> bytes:
        return self.encode(json.dumps(self.nb, ensure_ascii=False, indent=1))


VARIANTS = {}


def variant(told: str = ""):
    """A way in which a notebook comes back; `told` is in a remark to the teacher, and no remark is there without it."""

    def note(change):
        VARIANTS[change.__name__] = (change, told)
        return change

    return note


@variant()
def as_released(nb): ...


@variant()
def timed(nb):
    nb.write(double=f"%%time\n{DOUBLE}", squared_double=f"\n%%capture out\n%%time\n{SQUARED}")


@variant()
def lines_of_ipython(nb):
    text = '"""\n%not a magic\n!nor this"""'
    lines = f"!pip install -q \\\n  einops\n%matplotlib inline\n?print\nprint??\nfiles = !ls\n%time factor = 2\n{text}"
    last = "for i in range(1):\n    %timeit -n1 double(2)\n%timeit double(2)"
    nb.write(double=f"{lines}\ndef double(x):\n    return (x * 7\n% (10 ** 9)\n) // 7 * factor\n{last}")


@variant()
def indented(nb):
    nb.write(double="\n    " + DOUBLE.replace("\n", "\n    ") + "\n    %timeit double(1)")


@variant()
def from_the_future(nb):
    nb.write(double=f"!pip list\nfrom __future__ import annotations\n{DOUBLE.replace('(x)', '(x: Unknown)')}")
    nb.write(squared_double=f"x = 1\nfrom __future__ import annotations\n{SQUARED}")


@variant()
def decorated(nb):
    nb.write(double=f"import functools\n@functools.cache\n{DOUBLE}\nmath.tau = 6\nfrom functools import wraps")
    nb.put("import functools\nfunctools.own = 1", before="double")
    twice = "def plain(f):\n    @wraps(f)\n    def g(*a):\n        return f(*a)\n    return g"
    nb.write(squared_double=f"{twice}\n@plain\n{SQUARED}")


@variant()
def a_helper_above(nb):
    nb.write(double=HELPED)
    nb.put(HELPER, before="double")


@variant()
def a_helper_between(nb):
    nb.write(double=HELPED)
    nb.put(HELPER, after="double")


@variant("helper for double: taken from a cell below")
def a_helper_below(nb):
    nb.write(double=HELPED)
    nb.put(f"{HELPER}\nhelper.factor = 2")


@variant("helper for double: taken from an edited demo cell")
def a_helper_in_a_demo(nb):
    nb.write(double=HELPED)
    nb.write(demo=f"{DEMO}\n{HELPER.replace('x + x', 'x * FACTOR')}\nFACTOR = len([1, 2])")


@variant("root for double: taken from an edited setup cell")
def a_helper_in_the_setup(nb):
    nb.write(double="def double(x):\n    return root(4) * x")
    nb.write(setup="import math, cmath\nfrom autograde import check\nfrom math import isqrt as root")


@variant("helper for double: taken from an edited check cell")
def a_helper_in_a_check(nb):
    nb.write(double=HELPED, check_double=f"{HELPER}\ncheck(double)")


@variant("double: it is taken from a cell that has not the exercise's mark")
def the_solution_in_the_check(nb):
    nb.write(double=STUBS["double"], check_double=f"{DOUBLE}\ncheck(double)")


@variant("edits in 1 of the course's own cells (demo)")
def an_edited_demo(nb):
    nb.write(demo=DEMO.replace("3", "4"))


@variant()
def a_demo_that_a_solution_uses(nb):
    nb.write(double="def double(x):\n    return halved(4 * x)")


@variant("edits in 1 of the course's own cells (demo)")
def a_demo_that_is_no_python(nb):
    nb.write(demo=f"{DEMO}\n1 +")


@variant()
def cut_between_definitions(nb):
    nb.write(double=HELPER)
    nb.put(HELPED, after="double")


@variant()
def cut_between_definitions_with_marks(nb):
    nb.write(double=HELPER)
    nb.put(HELPED, after="double", like="double")


@variant()
def cut_inside_a_function(nb):
    first, _, second = DOUBLE.rpartition("\n")
    nb.write(double=first)
    nb.put(second, after="double")


@variant()
def cut_after_the_definition(nb):
    nb.put("print(double(1))", after="double", like="double")


@variant()
def two_exercises_in_one_cell(nb):
    nb.write(double=f"{DOUBLE}\n\n{SQUARED}")
    nb.remove("squared_double")


@variant("double for double: taken from the cell of squared_double")
def two_exercises_in_the_later_cell(nb):
    nb.write(squared_double=f"{DOUBLE}\n\n{SQUARED}")
    nb.remove("double")


@variant()
def an_exercise_and_its_check_in_one_cell(nb):
    nb.write(double=f"{DOUBLE}\nif False:\n    check(double)")
    nb.remove("check_double")


@variant("double: its cell is markdown and was read as code")
def markdown(nb):
    nb["double"]["cell_type"] = "markdown"


@variant("double: its cell is raw and was read as code")
def raw(nb):
    nb["double"]["cell_type"] = "raw"


@variant("helper for double: taken from a markdown cell")
def a_helper_that_became_markdown(nb):
    nb.write(double=HELPED)
    nb.put(HELPER, before="double", kind="markdown")


@variant()
def another_order(nb):
    nb.cells.append(nb.cells.pop(nb.cells.index(nb["double"])))
    nb.cells.insert(0, nb.cells.pop(nb.cells.index(nb["squared_double"])))


@variant("double: it is there 2 times and the last solved one counts")
def a_stub_pasted_below(nb):
    nb.put(STUBS["double"], after="double", like="double")


@variant("double: it is there 2 times and the last solved one counts")
def a_stub_pasted_above(nb):
    nb.put(STUBS["double"], before="double", like="double")


@variant()
def a_stub_pasted_without_its_mark(nb):
    nb.put(f"import math\n{STUBS['double']}", after="double")


@variant("double: it is there 2 times and the last solved one counts")
def solved_twice(nb):
    nb.write(double="def double(x):\n    return 0")
    nb.put(DOUBLE, like="double")


@variant()
def copied_as_it_is(nb):
    nb.put(DOUBLE, before="check_double", like="double")


@variant("double: it is taken from a cell that has not the exercise's mark")
def solved_in_another_cell(nb):
    nb.write(double=STUBS["double"])
    nb.put(DOUBLE)


@variant()
def the_stubs_line_left_below(nb):
    branch = "if x:\n        return x + x\n    else:\n        return 0"
    nb.write(double=f"def double(x):\n    {branch}\n    raise NotImplementedError")


@variant()
def a_table_filled_below_its_definition(nb):
    table = "TABLE = {}\nfor i in range(9):\n    TABLE[i] = 2 * i\nmore = []\nmore.append(0)"
    nb.write(double=f"{table}\ndef double(x):\n    return TABLE[x] + more[0]")


@variant("no cell has an exercise's mark")
def stripped(nb):
    for each in nb.cells:
        each["metadata"] = {}
        del each["id"]
    nb.nb["nbformat_minor"] = 4


@variant("helper for double: taken from an edited demo cell")
def stripped_with_a_helper_in_a_demo(nb):
    a_helper_in_a_demo(nb)
    stripped(nb)


@variant("")
def colab(nb):
    for each in nb.cells:
        each["metadata"] |= {"id": each.pop("id"), "colab": {"base_uri": "https://localhost:8080/", "height": 35}}
    nb.nb |= {"nbformat_minor": 0, "metadata": {"colab": {"provenance": []}, "accelerator": "GPU"}}


@variant()
def vs_code(nb):
    for each in nb.cells:
        each["metadata"]["vscode"] = {"languageId": "python"}
        each["source"] = each["source"].splitlines(keepends=True)


@variant()
def one_id_for_all(nb):
    for each in nb.cells:
        each["id"] = "same"


@variant()
def byte_order_mark(nb):
    nb.encode = lambda text: b"\xef\xbb\xbf" + text.encode()


@variant()
def utf_16(nb):
    nb.encode = lambda text: text.encode("utf-16")


@variant()
def lines_of_windows(nb):
    nb.write(double=DOUBLE.replace("\n", "\r\n") + '\r\ntext = """\r\n"""')
    nb.encode = lambda text: text.replace("\n", "\r\n").encode()


@variant()
def a_cell_that_is_no_python(nb):
    nb.put("this is no Python", before="double")


@variant()
def a_cell_without_end(nb):
    nb.put("x = 1\n" * 30_000, before="double")


@variant()
def a_name_bound_again(nb):
    nb.put("double = cached(double)\n\ndef unrelated():\n    return missing", after="double")
    nb.put("def cached(f):\n    return f", before="double")


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Puts a notebook where `own` finds it."""

    def put(content: bytes) -> None:
        (tmp_path / "one_section").mkdir(exist_ok=True)
        (tmp_path / f"{CHAPTER}.ipynb").write_bytes(content)

    (tmp_path / "another_section").mkdir()
    monkeypatch.chdir(tmp_path / "another_section")
    monkeypatch.setattr(labkit.parts, "_REPOSITORY", tmp_path / "nowhere")
    return put


def handed_in(name: str) -> tuple[bytes, str]:
    change, told = VARIANTS[name]
    nb = Learner()
    change(nb)
    return nb.content(), told


def as_in_the_sandbox(taken) -> dict[str, int]:
    """What each exercise's function gives for 3 where its check stands."""
    room, found = _Notebook(None, {}), {}
    for step in taken.steps:
        if step.kind == "check":
            found[step.label] = vars(room.space)[step.label](3)
        else:
            room._executed({"label": step.label, "source": step.source, "limit": 5.0})
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_grading_takes_the_solutions_from_every_variant(name):
    content, told = handed_in(name)
    taken = take(cells_of(content), outline("a_chapter", source()))
    assert as_in_the_sandbox(taken) == WANTED
    assert any(told in remark for remark in taken.remarks) if told else not taken.remarks, taken.remarks
    assert not any("a demo was run" in step.source for step in taken.steps)


@pytest.mark.parametrize("name", VARIANTS)
def test_own_takes_the_solutions_from_every_variant(name, beside, capsys):
    beside(handed_in(name)[0])
    assert {exercise: own(exercise, CHAPTER)(3) for exercise in WANTED} == WANTED
    assert len(capsys.readouterr().out.splitlines()) == 2


UNSOLVED = [as_released, timed, indented, from_the_future, decorated, a_helper_above, the_solution_in_the_check]
UNSOLVED += [markdown, two_exercises_in_one_cell, another_order]
UNSOLVED += [a_stub_pasted_below, a_stub_pasted_above, stripped, colab]


@pytest.mark.parametrize("change", UNSOLVED)
def test_what_is_open_stays_open(change, monkeypatch, beside):
    begun = "def double(x):\n    if x < 0:\n        return 0\n    raise NotImplementedError"
    for text in ("DOUBLE", "HELPED"):
        monkeypatch.setitem(globals(), text, begun)
    nb = Learner()
    change(nb)
    beside(nb.content())
    with pytest.raises(PartMissing, match="double isn't solved yet in .* squared_double calls it"):
        own("squared_double", CHAPTER)
    with pytest.raises(NotImplementedError):
        as_in_the_sandbox(take(cells_of(nb.content()), outline("a_chapter", source())))


def test_only_what_is_needed_is_taken_from_the_courses_own_cells():
    nb = Learner()
    a_helper_in_a_demo(nb)
    taken = take(cells_of(nb.content()), outline("a_chapter", source()))
    extra = [step for step in taken.steps if step.kind not in ("setup", "exercise", "check")]
    assert [(step.kind, step.label) for step in extra] == [("added", "definitions for double")]
    assert "shown" not in extra[0].source and "helper" in extra[0].source


def test_a_demo_of_the_release_that_a_solution_uses_is_nobodys_own_work():
    nb = Learner()
    a_demo_that_a_solution_uses(nb)
    taken = take(cells_of(nb.content()), outline("a_chapter", source()))
    assert [step.kind for step in taken.steps if step.label.startswith("definitions")] == ["shown"]


def test_what_a_cell_magic_keeps_from_running_is_told():
    nb = Learner()
    nb.write(double=f"%%writefile double.py\n{DOUBLE}")
    taken = take(cells_of(nb.content()), outline("a_chapter", source()))
    assert "double: what stands under %%writefile is not run" in taken.remarks


def test_a_copy_of_a_solution_runs_once():
    nb = Learner()
    copied_as_it_is(nb)
    steps = take(cells_of(nb.content()), outline("a_chapter", source())).steps
    assert [step.kind for step in steps] == ["setup", "exercise", "check", "exercise", "check"]


def test_an_exercise_that_is_nowhere_is_told():
    nb = Learner()
    nb.remove("double")
    taken = take(cells_of(nb.content()), outline("a_chapter", source()))
    assert taken.remarks == ("the cell of double is missing",) and "double" not in taken.solutions


def test_own_tells_which_of_several_it_took(beside, capsys):
    beside(handed_in("solved_twice")[0])
    own("double", CHAPTER)
    told = f"double: yours, from {CHAPTER}.ipynb (it is there 2 times and the last solved one counts).\n"
    assert capsys.readouterr().out == told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf \n", "the file is empty"),
        (Learner().content()[:300], "the file is not valid JSON: it may have been cut off"),
        (b"print(1)", "the file is not valid JSON"),
        (b"[" * 200_000, "the file is not valid JSON"),
        ('{"cells": "größer"}'.encode("latin-1"), "the file is not UTF-8 text"),
        (b'{"a": 1}', "it is JSON, but no notebook"),
        (b'{"nbformat": 3, "worksheets": [{"cells": []}]}', "it is a notebook of the old format 3"),
        (b'{"nbformat": 5, "cells": []}', "it is a notebook of another format than 4"),
    ],
)
def test_what_is_no_notebook_is_one_sentence_and_the_same_everywhere(beside, content, told):
    beside(content)
    with pytest.raises(PartMissing, match=f"^{CHAPTER}.ipynb can't be read: {told}[^.]*\\.$"):
        own("double", CHAPTER)
    with pytest.raises(ValueError, match=f"(?i)^{told}[^.]*\\.$"):
        cells_of(content)


def test_what_is_known_of_a_release_is_looked_through_once():
    """A class of hundreds has the same demos: what was found out about them is kept, and no learner's own text is."""
    of = outline("a_chapter", source())
    cells = [cell("def mine(x):\n    return 2 * x"), *source()]
    notebook._tops_of_known.cache_clear()
    found = [Reading(cells, NAMES, known) for known in ((), of.texts, of.texts)]
    kept = notebook._tops_of_known.cache_info()
    assert kept.hits == kept.misses == len({each["source"].strip() for each in cells} & set(of.texts)) > 0
    plain, first, again = ({n: list(where) for n, where in each._definitions.items()} for each in found)
    assert plain == first == again
    assert found[0].chosen == found[1].chosen == found[2].chosen
