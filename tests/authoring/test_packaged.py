"""What the build puts into the packages: the map's data and every exercise's cell; fresh, whole, and one truth."""

from __future__ import annotations

import ast
import graphlib
import json

import pytest
import yaml
from real_course import chapters
from toy_course import GOOD, course

from autograde import cli, reference
from autograde.authoring import build, lint, packaged
from autograde.authoring.bank import Bank
from autograde.authoring.chapter import all_chapters, title_of
from autograde.classroom.sandbox.isolation import seen_inside
from autograde.exercises import find, names
from autograde.repository import ROOT
from labkit.chapters import chapters as on_the_map
from labkit.chapters import course as data

NEEDS = "#     questions: []\n"


def test_both_files_are_up_to_date():
    assert packaged.stale() == [], "run `autograde build` and commit what it writes"


def test_a_change_is_found_and_built(tmp_path, monkeypatch, capsys):
    root = course(tmp_path, GOOD)
    (root / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert packaged.build(root) == [packaged.MAP, packaged.REFERENCE]
    assert packaged.build(root) == [] == packaged.stale(root)
    course(tmp_path, GOOD.replace("A chapter", "Another chapter"))
    assert packaged.stale(root) == [packaged.MAP]
    build.build(root)
    monkeypatch.setattr(build.stale, "__defaults__", (root, None))
    monkeypatch.setattr(packaged.stale, "__defaults__", (root, None))
    assert cli.main(["build", "--check"]) == 1
    assert capsys.readouterr().err.startswith("labkit/chapters.json is out of date")


def test_a_course_without_reveals_ships_no_solution(tmp_path):
    root = course(tmp_path, GOOD)
    settings = (ROOT / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(settings)
    assert "secret_recipe(x)" in packaged.files(root)[packaged.REFERENCE]
    (root / "pyproject.toml").write_text(settings.replace("[tool.course]", "[tool.course]\nreveal = false"))
    text = packaged.files(root)[packaged.REFERENCE]
    assert "secret_recipe(x)" not in text and "raise NotImplementedError" in text


def test_the_map_has_every_chapter_with_minutes_prerequisites_and_points():
    assert [chapter.path for chapter in on_the_map()] == [chapter.path for chapter in chapters()]
    for chapter in on_the_map():
        assert chapter.title == title_of(ROOT, chapter.path)
        assert chapter.minutes >= 15 and chapter.minutes % 15 == 0
        assert chapter.exercises == {name: find(name).points for name in chapter.exercises}
        assert all(data()["questions"][question].strip() for question in chapter.questions)
    assert sorted(name for chapter in on_the_map() for name in chapter.exercises) == sorted(names())


def test_every_header_says_what_to_solve_first():
    for chapter in chapters():
        header = (ROOT / chapter.file).read_text(encoding="utf-8").split("# ---\n")[1].replace("\n#", "\n")[1:]
        assert "needs" in yaml.safe_load(header)["jupyter"]["course"], chapter.file


def test_prerequisites_exist_come_earlier_and_have_no_circles():
    paths = [chapter.path for chapter in chapters()]
    needs = {chapter.path: chapter.needs for chapter in chapters()}
    list(graphlib.TopologicalSorter(needs).static_order())
    for path, before in needs.items():
        assert set(before) <= set(paths[: paths.index(path)]), path


def calls_of_own(chapter):
    trees = [ast.parse(cell.source) for cell in chapter.cells if cell.kind != "markdown"]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "own" and len(node.args) > 1:
            yield ast.literal_eval(node.args[0]), ast.literal_eval(node.args[1])


def test_chapters_whose_functions_are_used_are_prerequisites():
    found = 0
    for chapter in chapters():
        for name, path in calls_of_own(chapter):
            found += 1
            assert path in chapter.needs, f"{chapter.file} uses {name} of {path}"
            assert name in next(each for each in on_the_map() if each.path == path).exercises
    assert found >= 6


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        ("[01_one/02_nowhere]", "it needs 01_one/02_nowhere, which is no chapter"),
        ("[01_one/01_chapter]", "need each other in a circle"),
        ("01_one/01_chapter", "`needs` in the course header should be a list"),
    ],
)
def test_a_prerequisite_that_cannot_be_is_named(tmp_path, needs, told):
    root = course(tmp_path, GOOD.replace(NEEDS, f"{NEEDS}#     needs: {needs}\n"))
    assert any(told in problem for problem in lint.problems(all_chapters(root), Bank([])))


def test_minutes_and_points_are_written_down_nowhere_else():
    for path in [*(ROOT / "solutions").rglob("*.py")]:
        header = path.read_text(encoding="utf-8").split("# ---\n")[1]
        assert "minutes" not in header and "points" not in header


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.path)
def test_stubs_are_the_cells_of_the_notebook_and_solutions_are_whole(chapter):
    notebook = json.loads((ROOT / "notebooks" / f"{chapter.path}.ipynb").read_text(encoding="utf-8"))
    marks = [(cell["metadata"].get("nbgrader", {}), "".join(cell["source"])) for cell in notebook["cells"]]
    cells = {mark["grade_id"]: source for mark, source in marks if mark.get("solution")}
    assert cells.keys() == {cell.name for cell in chapter.of("exercise")}
    for name, source in cells.items():
        assert reference.stub(name) == source
        solution = reference.solution(name)
        compile(solution, name, "exec")
        assert "SOLUTION" not in solution and solution != source


def test_the_sandbox_has_neither_stubs_nor_solutions():
    assert not {"reference.py", "reference.json", "answers.py", "buttons.py"} & seen_inside().keys()
    assert seen_inside()["keeping.py"] == "classroom/inside/keeping.py"


def test_both_files_are_part_of_an_installed_copy():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "*.json" in settings["package-data"]["*"]
    assert {"autograde*", "labkit*"} <= set(settings["packages"]["find"]["include"])
