"""What the benchmark counts, and what it marks."""

import subprocess
import sys

import psutil
import pytest

from autograde import bench
from autograde.processes import Peak, memory

EATER = "import sys; food = bytearray(b'x') * 10**8; print('full', flush=True); sys.stdin.read()"
RUNNER = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {EATER!r}]))"


def test_memory_is_that_of_all_processes_below():
    runner = subprocess.Popen([sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        runner.stdout.readline()
        assert 1e8 < memory(psutil.Process(runner.pid)) < 2e8
    finally:
        runner.communicate()
    gone = psutil.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert memory(gone) == 0


def test_a_peak_is_seen_though_it_is_over_and_asked_for_exactly_where_something_grew(monkeypatch):
    """An exact answer stops the program that is measured: 40 looks at one that rests ask for few of them."""
    waits = "print('up', flush=True); sys.stdin.readline(); food"
    gives_back = "sys.stdin.readline(); del food; sys.stdin.read()"
    eats = EATER.replace("food", waits, 1).replace("sys.stdin.read()", gives_back)
    run = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {eats!r}])"
    runner = subprocess.Popen(
        [sys.executable, "-c", run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    asked = []
    monkeypatch.setattr("autograde.processes.memory", lambda runner: asked.append(memory(runner)) or asked[-1])
    try:
        peak = Peak(psutil.Process(runner.pid))
        runner.stdout.readline()
        for _ in range(40):
            peak.look()
        before, small = len(asked), peak.bytes
        runner.stdin.write("\n")
        runner.stdin.flush()
        assert runner.stdout.readline() == "full\n"
        peak.look()
        runner.stdin.write("\n")
    finally:
        runner.communicate()
    peak.look()
    assert before < 30 and small < 5e7 and 1e8 < peak.bytes < 2e8


def test_the_table_marks_what_is_over_its_budget_and_nothing_else():
    notebooks = [bench.Notebook("slow", 61, 0.5, 2), bench.Notebook("big", 3, 1.31, None, "NameError: x")]
    checks = [bench.Check("f", 1.2, False, 3, 4), bench.Check("g", 1.2, True, 4, 4)]
    rows = {line.split()[0]: line for line in bench.table(notebooks, checks).splitlines() if line}
    assert rows["slow"].count("!") == 1 and "61.00 s !" in rows["slow"]
    assert "1.31 GB !" in rows["big"] and "none" in rows["big"] and "NameError: x" in rows["big"]
    assert "1.20 s !" in rows["f"] and "3 of 4" in rows["f"] and "!" not in rows["g"]


def test_a_notebook_that_fails_is_reported_with_its_error(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(source) for source in ("print(1)", "1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "fails.ipynb")
    told, peak = bench.watched("solution", tmp_path / "fails.ipynb")
    assert told["error"].startswith("ZeroDivisionError") and peak > 0


def test_the_first_figure_is_seen_past_errors(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    draw = "from labkit import figure, show\nshow(figure()[0], 'an empty figure')"
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 / 0", "print('<img')", draw)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "draws.ipynb")
    assert bench.watched("figure", tmp_path / "draws.ipynb")[0]["first_figure"] > 0
    nbformat.write(nbformat.v4.new_notebook(cells=cells[:2]), tmp_path / "draws.ipynb")
    assert "first_figure" not in bench.watched("figure", tmp_path / "draws.ipynb")[0]


def test_what_does_not_exist_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--json", str(tmp_path / "missing" / "x.json")])
    assert "there is no folder" in capsys.readouterr().err


def test_the_pair_says_how_many_times_faster_and_whether_the_scores_agree():
    from autograde.classroom.pair import Pair

    text = Pair(4, 3, 7, 30.0, 3.0, 1.5, 2, 190.0, True).text
    assert "(10.0 x)" in text and "(20.0 x)" in text and "the same scores" in text
    assert "DIFFERENT" in Pair(4, 3, 7, 30.0, 3.0, 1.5, 2, 190.0, False).text


def test_what_was_measured_before_ctrl_c_is_told_and_kept(monkeypatch, tmp_path, capsys):
    def measure(names, notebooks, checks):
        notebooks.append(bench.Notebook("01_first", 3, 0.5, 2, processor=4.5))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure", measure)
    assert bench.main(["01", "--json", str(tmp_path / "told.json")]) == 130
    told = capsys.readouterr()
    assert "Stopped" in told.err and "01_first" in told.out and "4.50 s" in told.out
    assert "01_first" in (tmp_path / "told.json").read_text()


def test_nothing_measured_before_ctrl_c_is_no_error(monkeypatch, capsys):
    def measure(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure", measure)
    assert bench.main(["01"]) == 130
    assert "Traceback" not in capsys.readouterr().err
