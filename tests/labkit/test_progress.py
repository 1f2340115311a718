import json
import os
import subprocess
import sys

import pytest

from labkit import progress


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABKIT_NO_PROGRESS", raising=False)
    forget(monkeypatch)
    return tmp_path / "home"


def forget(monkeypatch):
    """Be a new kernel."""
    monkeypatch.setattr(progress, "_memory", {})
    monkeypatch.setattr(progress, "_tried", {})


def test_the_best_is_kept(monkeypatch):
    for earned in (1, 3, 2):
        progress.record("rope", earned, 4)
    forget(monkeypatch)
    assert progress.best("rope") == (3.0, 4.0)
    assert progress.best("other") is None


def test_an_exercise_that_is_worth_more_by_now():
    progress.record("rope", 2, 2)
    progress.record("rope", 3, 4)
    assert progress.best("rope") == (2.0, 2.0)
    progress.record("rope", 4, 4)
    assert progress.best("rope") == (4.0, 4.0)


@pytest.mark.parametrize("content", ["{", "", "[1, 2]", '{"rope": 3}', '{"rope": ["x", 1]}', "\udcff"])
def test_a_damaged_file_is_set_aside(home, monkeypatch, content):
    home.mkdir()
    (home / "progress.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert progress.best("rope") is None
    progress.record("rope", 1, 1)
    forget(monkeypatch)
    assert progress.best("rope") == (1.0, 1.0)
    assert (home / "progress.damaged.json").exists()


def test_a_write_that_fails_leaves_the_old_file(home, monkeypatch):
    progress.record("rope", 1, 2)
    before = (home / "progress.json").read_bytes()

    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    progress.record("rope", 2, 2)
    assert progress.best("rope") == (2.0, 2.0)  # this kernel remembers
    assert (home / "progress.json").read_bytes() == before
    assert not list(home.glob(".progress-*"))


def test_writers_at_the_same_time_lose_nothing(home):
    code = "import sys; from labkit import progress\nfor i in range(25): progress.record(f'{sys.argv[1]}-{i}', 1, 1)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [subprocess.Popen([sys.executable, "-c", code, name], env=env) for name in "abcd"]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert len(json.loads((home / "progress.json").read_text())) == 100


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "file" / "below"))
    progress.record("rope", 1, 1)
    assert progress.best("rope") == (1.0, 1.0)


def test_it_can_be_turned_off(home, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")
    progress.record("rope", 1, 1)
    assert progress.best("rope") is None and not home.exists()
    progress.show()
    assert "No exercise" in capsys.readouterr().out


def test_show_in_a_terminal(capsys):
    progress.record("rope", 4, 4)
    progress.record("a<b", 1, 3)
    progress.show()
    assert capsys.readouterr().out == "  a<b       1 / 3\n✓ rope      4 / 4\n  all       5 / 7\n"


def test_show_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "show_html", lambda html, text: shown.append(html) or True)
    progress.record("a<b", 1, 3)
    progress.show()
    assert "a&lt;b" in shown[0] and "1 of 3" in shown[0]


def test_it_needs_no_torch():
    code = "import sys, labkit; labkit.progress.best('x'); sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.call([sys.executable, "-c", code], env=env) == 0


def test_results_by_name():
    progress.record("rope", 3, 4)
    assert progress.results() == {"rope": (3.0, 4.0)}
    assert not progress.is_solved("rope") and not progress.is_solved("other")
    progress.record("rope", 4, 4)
    assert progress.is_solved("rope")


def test_attempts_and_reveals_are_kept(home, monkeypatch):
    progress.record_attempt("rope")
    progress.record_attempt("rope")
    progress.record_reveal("rope")
    progress.record_reveal("mask")
    forget(monkeypatch)
    assert progress.attempts("rope") == progress.Attempts(tried=2, revealed=True)
    assert progress.attempts("mask") == progress.Attempts(revealed=True, anyway=True)
    assert progress.attempts("other") == progress.Attempts()
    assert set(json.loads((home / "attempts.json").read_text())) == {"rope", "mask"}


def test_a_try_after_a_reveal_does_not_make_it_an_honest_one():
    progress.record_reveal("rope")
    progress.record_attempt("rope")
    progress.record_reveal("rope")
    assert progress.attempts("rope") == progress.Attempts(tried=1, revealed=True, anyway=True)


def test_to_look_at_a_solution_once_it_is_solved_is_no_reveal():
    progress.record("rope", 4, 4)
    progress.record_reveal("rope")
    assert not progress.attempts("rope").revealed


def test_a_pass_after_a_reveal_is_a_pass_and_marked(capsys):
    progress.record_attempt("rope")
    progress.record_reveal("rope")
    progress.record("rope", 4, 4)
    assert progress.is_solved("rope")
    progress.show()
    assert capsys.readouterr().out.startswith("✓ rope      4 / 4  revealed\n")


@pytest.mark.parametrize("content", ["{", "[1]", '{"rope": 3}', '{"rope": {}}', '{"rope": {"tried": "x"}}'])
def test_damaged_attempts_are_set_aside(home, monkeypatch, content):
    home.mkdir()
    (home / "attempts.json").write_text(content)
    assert progress.attempts("rope") == progress.Attempts()
    progress.record_attempt("rope")
    forget(monkeypatch)
    assert progress.attempts("rope").tried == 1 and (home / "attempts.damaged.json").exists()


def test_what_a_newer_version_knows_more_does_not_disturb(home):
    home.mkdir()
    (home / "attempts.json").write_text('{"rope": {"tried": 2, "mood": "good"}}')
    assert progress.attempts("rope").tried == 2 and (home / "attempts.json").exists()


def test_attempts_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "file" / "below"))
    progress.record_attempt("rope")
    progress.record_attempt("rope")
    assert progress.attempts("rope").tried == 2


def test_attempts_of_two_kernels_add_up(home):
    code = "from labkit import progress\nfor i in range(20): progress.record_attempt('rope')"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kernels = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(3)]
    assert [kernel.wait() for kernel in kernels] == [0] * 3
    assert progress.attempts("rope").tried == 60


def test_turned_off_a_kernel_still_knows_that_somebody_tried(home, monkeypatch):
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")
    progress.record_attempt("rope")
    assert progress.attempts("rope").tried == 1 and not home.exists()
