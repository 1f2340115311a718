"""The map of the course: what is solved, where to go next, and how both look in a notebook and in a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from labkit import chapters, course_map, progress
from labkit.chapters import standings, suggestion


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABKIT_NO_PROGRESS", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr(progress, "_memory", {})
    monkeypatch.setattr(progress, "_tried", {})
    return tmp_path / "home"


def solve(*paths):
    for chapter in chapters.chapters():
        if not paths or chapter.path in paths:
            for name, points in chapter.exercises.items():
                progress.record(name, points, points)


def next_path():
    step = suggestion(standings())
    return step and step.chapter.path


def test_all_chapters_stand_in_the_map():
    assert len(standings()) == 32
    assert [each.chapter.number for each in standings()][:2] + [standings()[-1].chapter.number] == ["1.1", "1.2", "3.8"]
    assert standings()[-1].chapter.section == "Data parallel"


def test_where_to_go_next():
    assert next_path() == "01_transformer/01_attention"
    solve("01_transformer/01_attention")
    assert next_path() == "01_transformer/02_encoder_decoder"
    solve("01_transformer/02_encoder_decoder")
    assert next_path() == "01_transformer/03_position_encodings"


def standing(path, needs=(), open=("f",), begun=False):
    chapter = chapters.Chapter(path, path, 15, tuple(needs), (), {"f": 1})
    return chapters.Standing(chapter, 0, 1, begun, tuple(open), ())


def test_a_chapter_that_needs_what_is_open_is_passed_over():
    first, second = standing("1_a/1_a", needs=["1_a/2_b"]), standing("1_a/2_b")
    assert suggestion([first, second]) is second
    assert suggestion([first, standing("1_a/2_b", open=())]) is first
    begun = standing("1_a/1_a", needs=["1_a/2_b"], begun=True)
    assert suggestion([begun, second]) is begun


def test_it_goes_on_in_order():
    solve("01_transformer/01_attention", "01_transformer/02_encoder_decoder", "01_transformer/03_position_encodings")
    assert next_path() == "01_transformer/04_rope"
    solve("01_transformer/04_rope", "01_transformer/05_normalization", "01_transformer/06_efficient_attention")
    assert next_path() == "01_transformer/07_training_recipe"
    progress.record("swiglu", 0, 4)
    solve("01_transformer/08_overfitting")
    assert next_path() == "01_transformer/07_training_recipe"


def test_what_was_begun_comes_first():
    progress.record_attempt("one_f_one_b_schedule")
    assert next_path() == "03_data_parallel/07_pipeline_parallel"
    progress.record("apply_rope", 1, 4)
    assert next_path() == "01_transformer/04_rope"
    assert "apply_rope" not in course_map.advice(standings()) and "rope_angles" in course_map.advice(standings())


def test_all_solved_leads_nowhere():
    solve()
    assert next_path() is None
    assert course_map.advice(standings()) == "All 32 chapters are solved."


def test_an_exercise_that_is_worth_more_by_now_counts_with_its_share():
    points = dict(standings()[0].chapter.exercises)
    progress.record("causal_mask", 1, 2)
    first = standings()[0]
    assert first.earned == points["causal_mask"] / 2 and first.points == sum(points.values()) and first.begun


def test_a_renamed_exercise_is_out_of_the_map_and_does_no_harm():
    progress.record("its_old_name", 4, 4)
    progress.record_reveal("its_other_old_name")
    assert sum(each.earned for each in standings()) == 0 and not any(each.begun for each in standings())


def test_a_result_of_no_points_does_no_harm():
    progress.record("causal_mask", 0, 0)
    assert standings()[0].earned == 0


def test_nearly_solved_never_looks_solved():
    solve("01_transformer/01_attention")
    points = chapters.chapters()[4].exercises["rope_angles"]
    progress.record("rope_angles", points - 1e-4, points)
    text = course_map.as_text(standings())
    assert re.search(r"x 1\.1 .*\[########\] +12/12", text)
    assert re.search(rf"  1\.4 .*\[##?\.+\] +{points - 0.1:g}/14", text)


def run(capsys, *arguments):
    status = course_map.main(list(arguments))
    return status, capsys.readouterr().out


def test_the_terminal_says_how_to_begin(capsys):
    status, out = run(capsys)
    assert status == 0 and "Nothing is solved yet. Begin with" in out and "python course.py lab" in out
    progress.record("softmax", 2, 2)
    assert "Nothing" not in run(capsys)[1]


def test_the_terminal_is_narrow_enough(capsys):
    for name in ("apply_rope", "gpt_forward"):
        progress.record(name, 1 / 3, 4)
        progress.record_reveal(name)
    for arguments in ([], ["a"], ["--section", "01"]):
        assert max(map(len, run(capsys, *arguments)[1].splitlines())) <= 100


def test_the_terminal_shows_a_section_or_a_chapter_with_its_exercises(capsys):
    assert re.findall(r"(?m)^. (\d\.\d+) ", run(capsys, "--section", "02")[1]) == [f"2.{n}" for n in range(1, 16)]
    progress.record_attempt("apply_rope")
    progress.record_reveal("apply_rope")
    progress.record("rope_angles", 3, 3)
    out = run(capsys, "rope")[1]
    assert "apply_rope  revealed" in out and "x rope_angles" in out and "1.5" not in out
    status, out = run(capsys, "nowhere")
    assert status == 1 and out.startswith("No chapter has that in its name.")


def test_the_terminal_needs_no_torch_and_no_notebook():
    told = "import sys; from labkit.course_map import main; main([]); sys.exit(any(m in sys.modules for m in %r))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = told % (["torch", "IPython", "autograde", "numpy", "matplotlib"],)
    assert subprocess.call([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL) == 0


class Page(HTMLParser):
    """Tags with their attributes, and whether each is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_the_page_is_a_table_with_heads_and_a_caption():
    solve("01_transformer/01_attention")
    progress.record_reveal("feed_forward")
    page = Page(course_map.as_html(standings()))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == 1 and tags.count("thead") == 1
    scopes = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert {scope: scopes.count(scope) for scope in scopes} == {"col": 5, "rowgroup": 3, "row": 32}
    assert page.words.count("✓ solved") == 1 and "1 revealed" in page.words and "Next: 1.2" in page.words
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b|rgb", course_map.as_html(standings())), "colors are the page's own"


def links(where, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", where)
    return [attributes["href"] for tag, attributes in Page(course_map.as_html(standings())).tags if tag == "a"]


def test_links_lead_to_notebooks_wherever_the_map_is_shown(monkeypatch):
    assert "01_transformer/04_rope.ipynb" in links("/home/ada/course/notebooks/00_start_here.ipynb", monkeypatch)
    inside = links("/home/ada/course/notebooks/02_applications/05_rag.ipynb", monkeypatch)
    assert "../01_transformer/04_rope.ipynb" in inside and all(link.startswith("../") for link in inside)


def test_links_on_colab_lead_to_colab_or_nowhere(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert links("", monkeypatch) == []
    monkeypatch.setitem(chapters.course(), "repository", "ada/course")
    start = "https://colab.research.google.com/github/ada/course/blob/main/notebooks/"
    assert f"{start}01_transformer/04_rope.ipynb" in links("", monkeypatch)


def test_a_notebook_gets_the_page_and_a_terminal_the_text(monkeypatch, capsys):
    shown = []
    course_map.show_map()
    assert "0 of 32 chapters solved" in capsys.readouterr().out
    monkeypatch.setattr(course_map, "show_html", lambda html, text: shown.append((html, text)) or True)
    course_map.show_map()
    assert "<table" in shown[0][0] and "0 of 32 chapters" in shown[0][1] and not capsys.readouterr().out
