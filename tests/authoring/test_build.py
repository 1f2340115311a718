"""From solutions/ to notebooks/: the same bytes each time, no leak, an error with file and cell for each mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types

import pytest
import yaml
from real_course import chapters, sources
from toy_course import CHECK, DEMO, EXERCISE, GOOD, HEADER, course, nbgrader_class

from autograde import cli
from autograde.authoring import build, lint
from autograde.authoring.chapter import AuthoringError
from autograde.authoring.lint import exercises_of
from autograde.classroom.course import make_course
from autograde.exercises import find
from autograde.regions import stubbed
from autograde.repository import ROOT


def test_notebooks_are_up_to_date():
    assert build.stale() == [], "run `autograde build` and commit notebooks/"


def test_building_twice_gives_the_same_bytes(tmp_path):
    root = course(tmp_path, GOOD)
    assert build.build(root) == ["01_one/01_chapter.ipynb"]
    first = (root / "notebooks/01_one/01_chapter.ipynb").read_bytes()
    assert build.build(root) == []
    (root / "notebooks/01_one/01_chapter.ipynb").unlink()
    build.build(root)
    assert (root / "notebooks/01_one/01_chapter.ipynb").read_bytes() == first
    assert b"\r" not in first


def test_a_notebook_that_no_chapter_makes_is_removed(tmp_path):
    root = course(tmp_path, GOOD)
    build.build(root)
    extra = root / "notebooks/old.ipynb"
    extra.write_text("{}")
    assert build.stale(root) == ["old.ipynb"]
    build.build(root)
    assert not extra.exists()


def test_a_change_by_hand_is_found(tmp_path):
    root = course(tmp_path, GOOD)
    build.build(root)
    path = root / "notebooks/01_one/01_chapter.ipynb"
    path.write_text(path.read_text().replace("A chapter", "My chapter"))
    assert build.stale(root) == ["01_one/01_chapter.ipynb"]


def test_nbgraders_own_release_is_the_same(tmp_path):
    """Our release is what `nbgrader generate_assignment` makes of the source, cell for cell."""
    root = course(tmp_path / "course", GOOD)
    build.build(root)
    api = nbgrader_class(tmp_path / "class", root)
    assert api.generate_assignment("01_one")["success"]
    theirs, ours = tmp_path / "class/release/01_one/01_chapter.ipynb", root / "notebooks/01_one/01_chapter.ipynb"
    assert json.loads(theirs.read_text())["cells"] == json.loads(ours.read_text())["cells"]


def leaks(chapter, notebook) -> set[str]:
    """The lines of a chapter's solutions that stand in a notebook, though no public part of the source has them."""
    hints = {hint for e in exercises_of(chapter).values() for hint in e.hints}
    given = "\n".join([*(stubbed(c.source) for c in chapter.cells), *hints])
    told = "\n".join(json.dumps(notebook, ensure_ascii=False).replace('\\"', '"').split("\\n"))
    secret = {line.strip() for line in build.lines_of_solutions(chapter)}
    assert secret, "the chapter has solutions"
    return {line for line in secret if len(line) > 6 and line not in given and line in told}


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.path)
def test_a_cell_that_takes_threads_away_gives_them_back(chapter):
    """05_rag timed one search on one thread by faiss's own setting, which is PyTorch's, too: it ran so to its end."""
    ran = [cell for cell in chapter.cells if cell.kind in ("setup", "demo", "payoff", "claim")]
    for cell in ran[2:]:  # what the first two say is for the whole chapter
        assert cell.source.count("set_num_threads(") != 1, f"{chapter.at(cell)}: how many do the next cells have?"


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.path)
def test_no_solution_leaks_into_a_release(chapter):
    text = (ROOT / "notebooks" / f"{chapter.path}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert not leaks(chapter, notebook)
    assert "HIDDEN" not in text and "hidden=True" not in text and "BEGIN SOLUTION" not in text
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
    stubs = [c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("solution")]
    assert stubs and all("raise NotImplementedError" in "".join(cell["source"]) for cell in stubs)


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.path)
def test_the_search_for_leaks_finds_them_in_the_source_notebook(chapter):
    assert leaks(chapter, sources()[chapter.path])


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.path)
def test_a_release_has_locked_checks_with_points_and_hints(chapter):
    notebook = json.loads((ROOT / "notebooks" / f"{chapter.path}.ipynb").read_text(encoding="utf-8"))
    graded = [c["metadata"]["nbgrader"] for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]
    assert len(graded) == len(chapter.of("exercise"))
    assert all(g["points"] > 0 and g["locked"] for g in graded)
    assert len({c["id"] for c in notebook["cells"]}) == len(notebook["cells"])
    text = json.dumps(notebook)
    assert text.count("Hint 3</summary>") == len(graded)
    assert all(question in text for question in chapter.questions)
    assert text.count("google.colab") == 1


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.path)
def test_what_is_forbidden_is_told_under_its_exercise(chapter):
    notebook = json.loads((ROOT / "notebooks" / f"{chapter.path}.ipynb").read_text(encoding="utf-8"))
    places = {c["metadata"].get("nbgrader", {}).get("grade_id"): i for i, c in enumerate(notebook["cells"])}
    for name in (cell.name for cell in chapter.of("exercise")):
        under = "".join(notebook["cells"][places[name] + 1]["source"])
        assert ("Not to be called here: " in under) == bool(find(name).forbid)
        assert all(f"`{forbidden}`" in under.partition("<details>")[0] for forbidden in find(name).forbid)


OPEN, CLOSE = "    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"
WRONG = {
    "a missing check": (HEADER + EXERCISE, "exercise softmax has no check cell", 3),
    "a check of nothing": (GOOD + CHECK.replace("softmax", "other"), "checks other, which no earlier cell defines", 5),
    "a check before its exercise": (HEADER + CHECK + EXERCISE, "checks softmax, which no earlier cell defines", 3),
    "two checks": (GOOD + CHECK, "is checked more than once", 3),
    "a check that checks something else": (
        GOOD.replace("check(softmax)", "check(abs)"),
        "never calls check(softmax",
        4,
    ),
    "a name twice": (GOOD + EXERCISE + CHECK, "exercise softmax also stands in", 5),
    "an unknown exercise": (GOOD.replace("softmax", "softmix"), "softmix is unknown in autograde.exercises.start_", 3),
    "an unknown module": (GOOD.replace("start_here", "nowhere"), "no exercise in autograde.exercises.nowhere", 0),
    "no module": (GOOD.replace("start_here", ""), "which names no module", 3),
    "an exercise under another name": (GOOD.replace("def softmax", "def mysoftmax"), "never defines softmax", 3),
    "an unclosed region": (GOOD.replace(CLOSE, ""), "a solution region is never closed", 3),
    "an unopened region": (GOOD.replace(OPEN, ""), "closes that was never opened", 3),
    "no region": (GOOD.replace(OPEN, "").replace(CLOSE, ""), "without a solution", 3),
    "a nested region": (GOOD.replace(OPEN, 2 * OPEN), "opens inside", 3),
    "a sloppy region": (GOOD.replace("### BEGIN", "# BEGIN"), "lines of their own", 3),
    "a region at the top": (
        GOOD.replace(EXERCISE, '# %% exercise="softmax"\n### BEGIN SOLUTION\nsoftmax = 1\n### END SOLUTION\n\n'),
        "outside any function",
        3,
    ),
    "a region in half of a statement": (
        GOOD.replace(OPEN, "")
        .replace("    return", "    return (\n" + OPEN + "    ")
        .replace(CLOSE, CLOSE + "    )\n"),
        "without its solution the cell is not Python",
        3,
    ),
    "a solution in a demo": (GOOD + DEMO + "### BEGIN SOLUTION\n### END SOLUTION\n", "outside an exercise cell", 5),
    "hidden tests by hand": (GOOD.replace("check(s", "### BEGIN HIDDEN TESTS\ncheck(s"), "are nbgrader's", 4),
    "an exercise that leans on a demo": (
        GOOD.replace("secret_recipe = ", '# %% tags=["demo"]\nsecret_recipe = '),
        "leans on secret_recipe, which no earlier setup or exercise cell defines",
        4,
    ),
    "a check that leans on a demo": (
        HEADER + DEMO + EXERCISE + CHECK.replace("check(softmax)", "check(softmax, hidden=bool(shown))"),
        "leans on shown",
        5,
    ),
    "a demo that leans on an exercise": (
        GOOD + DEMO.replace("1", "softmax(torch.ones(3))"),
        "a demo that depends on the exercise softmax",
        5,
    ),
    "a demo that leans on a later one": (GOOD + DEMO.replace("shown = 1", "shown") + DEMO, "leans on shown", 5),
    "a payoff with a typing mistake": (GOOD + '# %% tags=["payoff"]\nsoftmaxx(1)\n', "leans on softmaxx", 5),
    "a demo that takes an exercise's name": (GOOD + DEMO.replace("shown", "softmax"), "the name of an exercise", 5),
    "two setups": (GOOD + '# %% tags=["setup"]\nimport math\n', "a second setup cell", 5),
    "no setup": (GOOD.replace('tags=["setup"]', 'tags=["demo"]'), "has no setup cell", 0),
    "an unknown tag": (GOOD + '# %% tags=["dmeo"]\n1\n', "unknown marks ['dmeo']", 5),
    "an unknown mark on a text": (GOOD + "# %% [markdown] kind=1\n# Text\n", "unknown marks ['kind']", 5),
    "two marks": (GOOD + '# %% tags=["demo", "payoff"]\n1\n', "more than one mark", 5),
    "no mark": (GOOD + "# %%\n1\n", "none of the marks", 5),
    "a syntax error": (GOOD + '# %% tags=["demo"]\nx = (1,\n', "is not Python", 5),
    "an unknown claim": (GOOD + '# %% claim="T99.1"\n1\n', "claim T99.1 is not in interview/", 5),
    "an unknown question": (GOOD.replace("questions: []", "questions: [T99]"), "question T99 is not in interview/", 0),
    "questions that are no list": (GOOD.replace("questions: []", "questions: T99"), "should be a list", 0),
    "no title": (GOOD.replace('title: "A chapter"', 'title: ""'), "has no title", 0),
    "no heading": (GOOD.replace("# # A chapter", "# A chapter"), "markdown with the title", 0),
    "a second title": (GOOD + "# %% [markdown]\n# # Again\n", "a second title", 5),
    "a level left out": (GOOD + "# %% [markdown]\n# ### Deep\n", "leaves out a level", 5),
    "a heading in a line": (GOOD + "# %% [markdown]\n# The end. ## Next\n", "in the middle of a line", 5),
    "a sentence in two": (GOOD + "# %% [markdown]\n# It is\n#\n# cut.\n", "goes on in the next paragraph", 5),
    "an unknown key": (GOOD.replace("questions: []", "question: []"), "unknown keys ['question']", 0),
    "no header": (GOOD[GOOD.index("# %%") :], "needs a header", 0),
    "a broken header": (GOOD.replace("course:", "course: ["), "needs a header", 0),
    "an unused exercise": (HEADER, "no cell has the exercise softmax", 0),
}


def test_exercises_in_another_order_than_their_folder_says_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(lint, "exercises_of", lambda chapter: dict.fromkeys(["second", "softmax"]))
    second = (EXERCISE + CHECK).replace("softmax", "second")
    with pytest.raises(AuthoringError, match="stand in another order than in autograde.exercises.start_here"):
        build.build(course(tmp_path, GOOD + second))


@pytest.mark.parametrize(("text", "told", "cell"), WRONG.values(), ids=list(WRONG))
def test_a_mistake_in_a_source_is_named_with_file_and_cell(tmp_path, text, told, cell):
    root = course(tmp_path, text)
    with pytest.raises(AuthoringError) as error:
        build.build(root)
    found = [problem for problem in error.value.problems if told in problem]
    assert found, error.value.problems
    assert "solutions/01_one/01_chapter.py" in found[0]
    assert not cell or f"cell {cell} " in found[0]
    assert not (root / "notebooks").exists()


def test_one_name_in_two_chapters_is_an_error(tmp_path):
    course(tmp_path, GOOD, "02_two/01_chapter")
    root = course(tmp_path, GOOD)
    with pytest.raises(AuthoringError, match="exercise softmax also stands in solutions/01_one/01_chapter.py"):
        build.build(root)


def test_all_mistakes_are_told_at_once(tmp_path):
    root = course(tmp_path, GOOD.replace(CLOSE, "") + DEMO.replace("demo", "dmeo"))
    (root / "interview/transformer.yaml").write_text("- [")
    (root / "interview/applications.yaml").unlink()
    with pytest.raises(AuthoringError) as error:
        build.build(root)
    told = error.value.problems
    assert len(told) == 4 and all(any(word in p for p in told) for word in ("dmeo", "closed", "not YAML", "missing"))


QUESTION = {
    "id": "T01",
    "zh": "问题?",
    "en": "A question?",
    "short": {"en": "Short.", "zh": "短。"},
    "depth": {"en": "Deep, $|x|$.", "zh": "深。"},
    "follow_ups": [{"id": "T01.f1", "q": {"en": "And?", "zh": "还有?"}, "a": {"en": "So.", "zh": "如此。"}}],
    "trap": {"en": "Beware.", "zh": "小心。"},
    "claims": [
        {
            "id": "T01.1",
            "says": {"en": "They say $|x|$ | y.", "zh": "据说。"},
            "verdict": "outdated",
            "right": {"en": "Rather this.", "zh": "不如这样。"},
            "source": "A paper, eq. 1",
            "tested_in": "01_one/01_chapter",
        }
    ],
}
ASKED = GOOD.replace("questions: []", "questions: [T01]") + '# %% claim="T01.1"\nmeasured = 1\n'


def with_bank(root, **changes):
    text = yaml.safe_dump([{**QUESTION, **changes}], allow_unicode=True)
    (root / "interview/transformer.yaml").write_text(text, encoding="utf-8")
    return root


def texts(root) -> list[str]:
    notebook = json.loads((root / "notebooks/01_one/01_chapter.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"]]


def test_a_claim_is_quoted_above_its_cell_and_judged_below(tmp_path):
    root = with_bank(course(tmp_path, ASKED))
    build.build(root)
    cells = texts(root)
    at = cells.index("measured = 1")
    assert "T01.1" in cells[at - 1] and "They say" in cells[at - 1] and "据说" in cells[at - 1]
    assert all("outdated" not in cell.lower() for cell in cells[:at])
    assert cells[at + 1].startswith("<details>")
    assert all(told in cells[at + 1] for told in ("Outdated", "已过时", "Rather this.", "不如这样。", "A paper, eq. 1"))


def test_a_card_has_every_part_in_both_languages(tmp_path):
    root = with_bank(course(tmp_path, ASKED))
    build.build(root)
    english, chinese = texts(root)[-1].split("<summary>中文</summary>")
    assert english.startswith("### T01: A question?") and "问题?" in english
    assert all(part in english for part in ("Short.", "Deep, $|x|$.", "*And?*", "So.", "Beware.", "A paper, eq. 1"))
    assert all(part in chinese for part in ("短。", "深。", "*还有?*", "如此。", "小心。", "不如这样。", "已过时"))
    assert r"| T01.1 | They say $\vert x\vert $ \| y. | outdated |" in english
    assert texts(root)[-1].count("<details>") == texts(root)[-1].count("</details>") == 6


def test_a_card_names_the_exercises_of_its_question(tmp_path):
    root = with_bank(course(tmp_path, ASKED), exercises={"01_one/01_chapter": ["softmax", "other"]})
    build.build(root)
    assert "问题?\n\nBuild it: `softmax`, `other` (01_one/01_chapter).\n" in texts(root)[-1]


CLAIM = QUESTION["claims"][0]
WRONG_BANK = {
    "a part without its Chinese": ({"trap": {"en": "Beware."}}, "T01, trap, zh is not a text"),
    "a part that is missing": ({"depth": None}, "T01, depth should have en, zh"),
    "a follow-up that is none": ({"follow_ups": ["And?"]}, "T01, follow_ups 1 should have id, q, a"),
    "a follow-up with another question's id": (
        {"follow_ups": [{**QUESTION["follow_ups"][0], "id": "T02.f1"}]},
        "follow_ups 1 has the id 'T02.f1'; it should be like T01.f1",
    ),
    "two follow-ups with one id": ({"follow_ups": QUESTION["follow_ups"] * 2}, "T01.f1 stands there 2 times"),
    "exercises without a chapter": ({"exercises": {"01_one/01_chapter": []}}, "a list of exercises"),
    "no follow-ups": ({"follow_ups": []}, "T01, follow_ups is not a list, or is empty"),
    "an unknown verdict": ({"claims": [{**CLAIM, "verdict": "fine"}]}, "has the verdict 'fine'"),
    "a claim of another question": ({"claims": [{**CLAIM, "id": "T02.1"}]}, "should begin with T01."),
    "a claim twice": ({"claims": [CLAIM, CLAIM]}, "T01.1 stands there 2 times"),
    "a claim that says it is tested elsewhere": (
        {"claims": [{**CLAIM, "tested_in": "x"}]},
        "is tested in x, which has",
    ),
    "a claim that no question asks": ({"claims": [{**CLAIM, "tested_in": None}]}, "does not say that claim T01.1 is"),
}


@pytest.mark.parametrize(("change", "told"), WRONG_BANK.values(), ids=list(WRONG_BANK))
def test_a_mistake_in_the_bank_is_named(tmp_path, change, told):
    root = with_bank(course(tmp_path, ASKED), **change)
    with pytest.raises(AuthoringError) as error:
        build.build(root)
    assert any(told in problem for problem in error.value.problems), error.value.problems


def test_a_class_gets_a_stub_in_every_method(tmp_path):
    text = GOOD.replace(
        "def softmax(x):",
        "class softmax:\n    def __init__(self):\n" + 2 * ("    " + OPEN + "        self.a = 1\n    " + CLOSE),
    ).replace('    """Probabilities."""\n' + OPEN + "    return secret_recipe(x)\n" + CLOSE, "")
    root = course(tmp_path, text)
    build.build(root)
    stub = next(cell for cell in texts(root) if cell.startswith("class softmax"))
    assert stub.count("        # YOUR CODE HERE\n        raise NotImplementedError") == 2 and "self.a" not in stub


def bootstrap(monkeypatch, slug: str, on_colab: bool, status: int = 0) -> list[list[str]]:
    """The pip commands that the bootstrap cell runs."""
    source = next(c.source for c in sources()["00_start_here"].cells if "bootstrap" in c.metadata.get("tags", []))
    source = re.sub("REPOSITORY, VERSION = .*", f"REPOSITORY, VERSION = {slug!r}, 'v1'", source)
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda c, **_: ran.append(c) or types.SimpleNamespace(returncode=status))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(source, {})
    return ran


def test_the_bootstrap_cell_does_nothing_outside_colab(monkeypatch):
    assert bootstrap(monkeypatch, "ada/x", on_colab=False) == []


def test_the_bootstrap_cell_brings_colab_what_it_lacks_and_no_more(monkeypatch):
    ran = bootstrap(monkeypatch, "ada/x", on_colab=True)
    assert all(command[1:4] == ["-m", "pip", "install"] for command in ran)
    assert ran[-1][-2:] == ["--no-deps", "git+https://github.com/ada/x@v1"]
    pins = re.findall(r"(?m)^[\w-]+==[\w.]+", (ROOT / "requirements-models.txt").read_text(encoding="utf-8"))
    assert pins and ["--no-deps", *pins] == ran[1][5:]
    assert not any(kept in command for command in ran for kept in ("torch", "numpy", "transformers", "ipython", "-U"))


@pytest.mark.parametrize(("slug", "status"), [("OWNER/transformer-course", 0), ("ada/x", 1)])
def test_the_bootstrap_cell_fails_in_one_sentence(monkeypatch, slug, status):
    with pytest.raises(SystemExit, match="not published yet" if "OWNER" in slug else "can't be installed"):
        bootstrap(monkeypatch, slug, on_colab=True, status=status)


def test_every_chapter_has_the_same_bootstrap_cell_but_for_what_it_lacks():
    cells = [[c.source for c in n.cells if "bootstrap" in c.metadata.get("tags", [])] for n in sources().values()]
    alike = [[re.sub(r"(?m)^    LACKING = .*", "", source) for source in cell] for cell in cells]
    assert all(cell == alike[0] and len(cell) == 1 for cell in alike)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys):
    root = course(tmp_path, HEADER + EXERCISE)
    monkeypatch.setattr(build.build, "__defaults__", (root,))
    assert cli.main(["build"]) == 1
    assert "1 to mend; nothing was written" in capsys.readouterr().err


def test_check_fails_on_a_stale_notebook(tmp_path, monkeypatch, capsys):
    root = course(tmp_path, GOOD)
    monkeypatch.setattr(build.stale, "__defaults__", (root, None))
    assert cli.main(["build", "--check"]) == 1
    assert "notebooks/01_one/01_chapter.ipynb is out of date" in capsys.readouterr().err
    build.build(root)
    assert cli.main(["build", "--check"]) == 0


def test_a_course_folder_is_made_once_and_its_secret_is_private(tmp_path, capsys):
    assert cli.main(["course", str(tmp_path / "class")]) == 0
    secret = tmp_path / "class/secret"
    assert len(secret.read_text().strip()) == 64
    assert os.name == "nt" or secret.stat().st_mode & 0o777 == 0o600
    assert len(list((tmp_path / "class/source").glob("*/*.ipynb"))) == len(chapters()) - 1
    before = secret.read_bytes()
    for wrong in (tmp_path / "class", secret):
        assert cli.main(["course", str(wrong)]) == 1
        assert "is not an empty folder" in capsys.readouterr().err
    assert secret.read_bytes() == before


def test_chapters_are_set_together_or_one_by_one(tmp_path, capsys):
    def ran(*arguments):
        return cli.main(["course", str(tmp_path / "class"), *arguments]), capsys.readouterr()

    def source():
        return {p.relative_to(tmp_path / "class/source").as_posix() for p in tmp_path.glob("class/source/*/*.ipynb")}

    assert "There is no chapter '01_one'" in ran("01_one")[1].err and not (tmp_path / "class").exists()
    assert ran("02_applications/02_sampling")[0] == 0 and source() == {"02_applications/02_sampling.ipynb"}
    secret = (tmp_path / "class/secret").read_bytes()
    code, said = ran("03_data_parallel/03_ddp", "01_transformer/04_rope", "--each")
    assert code == 0 and "03_ddp, 04_rope" in said.out
    assert source() == {"02_applications/02_sampling.ipynb", "03_ddp/03_ddp.ipynb", "04_rope/04_rope.ipynb"}
    assert "--each" in ran("02_applications/02_sampling")[1].err
    assert "To add chapters to it" in ran()[1].err
    assert (tmp_path / "class/secret").read_bytes() == secret
    assert len({chapter.path.rpartition("/")[2] for chapter in chapters()}) == len(chapters())


def test_some_chapters_are_made_alone_as_they_are_among_all(tmp_path):
    root = course(tmp_path, GOOD)
    second = HEADER.replace("start_here", '""')
    course(tmp_path, second + DEMO, "01_one/02_second")
    whole = {path: build.as_text(notebook) for path, notebook in build.sources(root).items()}
    course(tmp_path, second + "# %%\nunmarked = 1\n", "01_one/02_second")
    with pytest.raises(AuthoringError, match="02_second"):
        build.sources(root)
    told = []
    alone = build.sources(root, ["01_one/01_chapter"], told.append)
    assert {path: build.as_text(notebook) for path, notebook in alone.items()} == {told[0]: whole[told[0]]}
    (root / "solutions/01_one/01_chapter.py").write_text(GOOD.replace("check(softmax)", "pass"))
    with pytest.raises(AuthoringError, match="never calls check"):
        build.sources(root, ["01_one/01_chapter"])


def test_a_course_of_one_chapter_reads_no_other_and_says_how_far_it_is(tmp_path):
    root = course(tmp_path, GOOD)
    course(tmp_path, "no chapter at all", "01_one/02_second")
    told = []
    made = make_course(tmp_path / "class", root, ["01_one/01_chapter"], told=told.append)
    assert made == ["01_one"] and told == ["  1/1  01_one/01_chapter"]
    assert [p.name for p in (tmp_path / "class/source").rglob("*.ipynb")] == ["01_chapter.ipynb"]
    with pytest.raises(ValueError, match="no chapter '01_one/03_third'. There are 01_one, 01_one/01_chapter"):
        make_course(tmp_path / "other", root, ["01_one/03_third"])
    assert not (tmp_path / "other").exists()
    with pytest.raises(AuthoringError, match="02_second"):
        make_course(tmp_path / "other", root)
    assert not (tmp_path / "other" / "source").exists()
