"""Where things stand: one exercise a file, in its chapter's order; no import runs in a circle or out of its room."""

from __future__ import annotations

import ast
import functools
import graphlib
import inspect
import subprocess
import sys
import textwrap

import pytest
from real_course import chapters

from autograde import exercises
from autograde.exercise import Exercise
from autograde.repository import ROOT

CHAPTERS = {chapter.exercises: chapter for chapter in chapters()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("autograde", "labkit")
    for path in (ROOT / package).rglob("*.py")
}


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    """The course's own modules that a module imports, anywhere in it."""
    return frozenset(imported(MODULES[module].read_text(encoding="utf-8")) & MODULES.keys()) - {module}


def imported(source: str) -> set[str]:
    """The dotted names that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("chapter", exercises.chapters())
def test_a_chapters_folder_holds_its_exercises_in_order_and_what_they_share(chapter):
    source = CHAPTERS[chapter]
    assert [cell.name for cell in source.of("exercise")] == list(exercises.order(chapter))
    without_numbers = ".".join(part.split("_", 1)[1] for part in source.path.split("/"))
    assert chapter == without_numbers
    folder = ROOT.joinpath("autograde", "exercises", *chapter.split("."))
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "shared"}
    assert files == set(exercises.order(chapter))


@pytest.mark.parametrize("name", exercises.names())
def test_a_file_holds_the_exercise_of_its_name(name):
    exercise = exercises.find(name)
    assert isinstance(exercise, Exercise) and exercise.name == name
    assert exercises.find(name) is exercise


def test_finding_an_exercise_imports_it_and_what_it_needs_and_no_other():
    asked = "import sys; from autograde.exercises import find; find('padding_mask'); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    own = {name for name in told.split() if name.startswith("autograde.exercises.")}
    section = "autograde.exercises.transformer"
    chapter = f"{section}.attention"
    assert own == {section, chapter, f"{chapter}.shared", f"{chapter}.padding_mask"}


@pytest.mark.parametrize("name", [name for name in exercises.names() if exercises.find(name).probe])
def test_no_probe_imports_what_solutions_may_not(name):
    """What runs during an import counts as the learner's, and `autograde.exercises` is forbidden to every solution."""
    used = imported(textwrap.dedent(inspect.getsource(exercises.find(name).probe)))
    assert not [one for one in used if f"{one}.".startswith("autograde.")]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("autograde.exercises.")])
def test_a_law_on_inputs_of_its_own_is_not_asked_of_every_case(module):
    """It would learn nothing new: `only` says on which."""
    for law in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(law, ast.FunctionDef) and any(".law(" in ast.unparse(each) for each in law.decorator_list):
            given = {argument.arg for argument in law.args.args} - {"call"}
            looked_at = {node.id for node in ast.walk(law) if isinstance(node, ast.Name)} & given
            assert looked_at or any(ast.unparse(each).startswith("only(") for each in law.decorator_list), law.name


def test_no_import_runs_in_a_circle():
    graphlib.TopologicalSorter({module: imports_of(module) for module in MODULES}).prepare()


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("labkit", ["autograde"]),
        ("autograde.exercises", ["autograde.authoring", "autograde.classroom", "autograde.judging.grading"]),
        ("autograde.judging", ["autograde.exercises", "autograde.authoring", "autograde.classroom"]),
        ("autograde.authoring", ["autograde.classroom", "autograde.practice"]),
        ("autograde.practice", ["autograde.classroom"]),
        ("autograde.classroom", ["autograde.practice"]),
        ("autograde.classroom.inside", ["autograde.exercises", "autograde.judging.grading", "autograde.report"]),
        ("autograde.classroom.sandbox", ["autograde.exercises", "autograde.classroom.reports"]),
        ("autograde.classroom.reports", ["autograde.exercises", "autograde.judging", "autograde.classroom.sandbox"]),
    ],
)
def test_no_import_leaves_its_room_for(room, never):
    inside = [module for module in MODULES if f"{module}.".startswith(f"{room}.")]
    assert inside
    leaving = {(m, i) for m in inside for i in imports_of(m) for n in never if f"{i}.".startswith(f"{n}.")}
    assert not leaving
