"""What was put away before a reset: kept over kernels, bounded, never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from labkit import history


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABKIT_NO_PROGRESS", raising=False)
    monkeypatch.setattr(history, "_memory", {})
    return tmp_path / "home"


def texts(name):
    return [version.text for version in history.versions(name)]


def test_texts_are_kept_in_order_with_their_time(monkeypatch):
    for text in ("one", "two", "two", "ünï 三 🙂"):
        assert history.keep("softmax", text) == "always"
    monkeypatch.setattr(history, "_memory", {})
    assert texts("softmax") == ["one", "two", "ünï 三 🙂"]
    assert texts("other") == []
    assert all(version.time[:2] == "20" and len(version.time) == 19 for version in history.versions("softmax"))


def test_the_oldest_go_where_there_are_many(monkeypatch):
    for number in range(history.MOST_VERSIONS + 5):
        history.keep("softmax", f"text {number}")
    history.keep("other", "mine")
    monkeypatch.setattr(history, "_memory", {})
    assert texts("softmax") == [f"text {number}" for number in range(5, history.MOST_VERSIONS + 5)]
    assert texts("other") == ["mine"]


def test_the_file_stays_small(home, monkeypatch):
    monkeypatch.setattr(history, "_MOST_ALL", 1_000)
    for number in range(6):
        history.keep(f"exercise {number % 3}", f"{number}" * 300)
    kept = [text for texts in json.loads((home / "history.json").read_text()).values() for _, text in texts]
    assert sum(map(len, kept)) <= 1_000 and "5" * 300 in kept


def test_a_text_without_end_is_refused(home):
    assert history.keep("softmax", "x" * (history.MOST_TEXT + 1)) == ""
    assert texts("softmax") == [] and not home.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"softmax": 3}', '{"softmax": [["only one"]]}', '{"softmax": [3]}'])
def test_a_damaged_file_is_set_aside(home, monkeypatch, content):
    home.mkdir()
    (home / "history.json").write_text(content)
    assert history.keep("softmax", "mine") == "always"
    monkeypatch.setattr(history, "_memory", {})
    assert texts("softmax") == ["mine"] and (home / "history.damaged.json").read_text() == content


def test_where_nothing_can_be_written_the_kernel_remembers(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "file" / "below"))
    assert history.keep("softmax", "mine") == "this kernel"
    assert texts("softmax") == ["mine"]


def test_turned_off_the_kernel_remembers_and_no_file_is_made(home, monkeypatch):
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")
    assert history.keep("softmax", "mine") == "this kernel"
    assert texts("softmax") == ["mine"] and not home.exists()


def test_a_write_that_fails_leaves_what_was_there(home, monkeypatch):
    history.keep("softmax", "one")
    before = (home / "history.json").read_bytes()

    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    assert history.keep("softmax", "two") == "this kernel"
    assert texts("softmax") == ["one", "two"]
    assert (home / "history.json").read_bytes() == before and not list(home.glob(".history-*"))


def test_two_kernels_at_once_lose_nothing():
    code = "import sys; from labkit import history\nfor i in range(9): history.keep('softmax', f'{sys.argv[1]} {i}')"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kernels = [subprocess.Popen([sys.executable, "-c", code, name], env=env) for name in "ab"]
    assert [kernel.wait() for kernel in kernels] == [0, 0]
    assert sorted(texts("softmax")) == sorted(f"{name} {i}" for name in "ab" for i in range(9))
