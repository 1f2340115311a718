"""What solved chapters gave is kept as long as it is of the code that stands."""

import json

import nbformat
import pytest

from website import running, runs
from website.chapters import page


def notebook(*sources, **nbgrader):
    cells = [nbformat.v4.new_code_cell(s, id=f"{i:012}", metadata={"tags": ["demo"]}) for i, s in enumerate(sources)]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_run_is_kept_until_the_code_changes(tmp_path):
    before, after = notebook("x = 1"), notebook("x = 2")
    runs.keep("01_a/b", runs.Run(runs.key(before), {"000000000000": []}), tmp_path)
    assert runs.kept("01_a/b", runs.key(before), tmp_path).outputs == {"000000000000": []}
    assert runs.kept("01_a/b", runs.key(after), tmp_path) is None


def test_words_and_the_place_of_publication_change_no_key():
    plain, told = notebook("x = 1"), notebook("x = 1")
    told.cells.insert(0, nbformat.v4.new_markdown_cell("Other words."))
    told.cells.insert(1, nbformat.v4.new_code_cell("REPOSITORY = 1", metadata={"tags": ["bootstrap"]}))
    assert runs.key(plain) == runs.key(told)


@pytest.mark.parametrize("file", ["labkit/verdict.py", "autograde/check.py", "experiments/results/T06.1.json"])
def test_the_course_s_own_code_and_results_are_part_of_the_key(file, monkeypatch):
    before = runs._code_of.__wrapped__(frozenset())
    read = runs.Path.read_bytes
    changed = runs.ROOT / file
    monkeypatch.setattr(runs.Path, "read_bytes", lambda path: read(path) + b"#" if path == changed else read(path))
    assert runs._code_of.__wrapped__(frozenset()) != before


def test_the_map_s_data_count_for_the_start_page_alone():
    data = runs.ROOT / "labkit" / "chapters.json"
    assert data in runs._reached(frozenset({"start_here"}))
    assert data.exists() and data not in runs._reached(frozenset({"transformer.rope"}))


def test_an_exercise_counts_for_its_own_chapter_alone():
    mine, others = (set(runs._reached(frozenset({c}))) for c in ("transformer.rope", "applications.sampling"))
    rope = runs.ROOT / "autograde" / "exercises" / "transformer" / "rope" / "apply_rope.py"
    assert rope in mine and rope not in others


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": "k", "more": 1}'])
def test_a_damaged_file_is_no_run(tmp_path, damage):
    (tmp_path / "x.json").write_text(damage)
    assert runs.kept("x", "k", tmp_path) is None


def test_outputs_of_two_notebooks_run_as_one_have_the_source_s_ids():
    made = notebook("x = 1")
    made.cells[0].id = "released-0123456789ab"
    assert list(runs.outputs_of(made)) == ["0123456789ab"]


@pytest.mark.usefixtures("warm")
def test_a_run_gives_every_cell_s_outputs():
    outputs, failed = running.execute(notebook("x = 1", "print(x + 1)"))
    assert not failed and outputs["000000000000"] == []
    assert outputs["000000000001"] == [{"output_type": "stream", "name": "stdout", "text": "2\n"}]


@pytest.mark.usefixtures("warm")
def test_a_failing_cell_is_named_and_the_page_says_so():
    failing = notebook("x = 1", "# here\nraise ValueError('no')", "y = 2")
    outputs, failed = running.execute(failing)
    assert outputs == {} and failed == "code cell 2 ('# here') failed: ValueError: no"
    release = notebook("a", "b", "c")
    release.cells[1] = nbformat.v4.new_markdown_cell("badges")
    made, _ = page("01_a/b", release, runs.Run("k", {}, failed), (), ())
    assert "code cell 2 ('# here') failed: ValueError: no" in made.cells[1].source


def test_what_is_kept_isn_t_run_again_and_a_failure_stops_nobody(monkeypatch):
    solved = {path: notebook(f"x = '{path}'") for path in ("a/kept", "a/broken", "a/new", "a/failed")}
    shelf = {
        "a/kept": runs.Run(runs.key(solved["a/kept"])),
        "a/failed": runs.Run(runs.key(solved["a/failed"]), {}, "no"),
    }
    monkeypatch.setattr(runs, "kept", lambda path, key: shelf.get(path))
    monkeypatch.setattr(running._Processes, "run", lambda self, path: f"ran {path}")
    told = []
    running.run_missing(solved, told.append)
    assert told[0].startswith("Running 3 of 4 chapters")
    assert sorted(line.split("ran ")[1] for line in told[1:]) == ["a/broken", "a/failed", "a/new"]


def test_the_kept_form_is_plain_json(tmp_path):
    runs.keep("x", runs.Run("k", {"id": [{"output_type": "stream", "name": "stdout", "text": "旋转\n"}]}), tmp_path)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["outputs"]["id"][0]["text"] == "旋转\n"
