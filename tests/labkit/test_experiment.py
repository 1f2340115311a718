"""Experiments: what is kept of them, when it counts as stale, and what follows from it."""

from __future__ import annotations

import json
import math
import sys

import pytest

import experiments
from experiments.__main__ import main, problems, run
from labkit import experiment as framework
from labkit.experiment import Evidence, Interval, NoEvidence, evidence, interval, wilson

SOURCE = '''"""A toy."""
import torch

from labkit.experiment import Experiment

experiment = Experiment(
    claim="T99.1",
    question="Does the shift show?",
    arms={"shifted": {"by": 1.0}, "left alone": {"by": 0.0}},
    seeds=range(3),
    shows="shifted",
    shows_not="left alone",
    live=("shifted", 1),
)


@experiment.measure
def measure(seed, by):
    """One run."""
    return {"mean": torch.randn(100).mean() + by, "curve": [seed, by]}


@experiment.conclude
def conclude(found):
    gap = found.interval("shifted", "mean", minus="left alone")
    shown = {arm: found.interval(arm, "mean").above(0.5) for arm in found.arms}
    return {
        "verdict": "correct" if gap.above(0.5) else "wrong",
        "controls": {"shows": shown["shifted"], "shows_not": not shown["left alone"]},
        "numbers": {"gap": gap.text()},
    }
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder of experiments with one in it; gives a function that rewrites it."""
    monkeypatch.setattr(framework, "_folder", lambda: tmp_path)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])

    def write(text: str = SOURCE):
        (tmp_path / "T99_1.py").write_text(text, encoding="utf-8")
        framework.find_experiment.cache_clear()
        sys.modules.pop("experiments.T99_1", None)
        return tmp_path / "results" / "T99.1.json"

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    framework.find_experiment.cache_clear()
    sys.modules.pop("experiments.T99_1", None)


def test_a_result_holds_every_seed_of_every_arm_and_what_follows(toy):
    path = toy()
    found = run("T99.1")
    assert found.verdict == "correct" and found.controls == {"shows": True, "shows_not": True}
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert [(each["arm"], each["seed"]) for each in kept["runs"]] == [
        (arm, seed) for seed in range(3) for arm in ("shifted", "left alone")
    ]
    assert kept["made"]["torch"] and kept["made"]["processor"] and kept["numbers"]["gap"]
    assert evidence("T99.1").each("shifted", "curve") == [[0, 1.0], [1, 1.0], [2, 1.0]]
    assert problems("T99.1") == []
    assert not path.with_name("T99.1.part.json").exists()


def test_a_stopped_experiment_goes_on_where_it_was(toy, monkeypatch):
    toy()
    calls = []
    experiment = framework.find_experiment("T99.1")
    measured = experiment._measure

    def stops(seed, by):
        calls.append((seed, by))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measured(seed, by)

    experiment.measure(stops)
    assert main(["T99.1"]) == 130
    assert main(["T99.1"]) == 0
    assert len(calls) == 7 and len(set(calls)) == 6


def test_other_code_makes_a_result_stale_and_other_words_do_not(toy):
    toy()
    run("T99.1")
    toy(SOURCE.replace("One run.", "One single run.").replace("Does the shift show?", "Does it?"))
    assert problems("T99.1") == []
    toy(SOURCE.replace("torch.randn(100)", "torch.randn(50)"))
    assert problems("T99.1") == ["T99.1: the result is of other code: run `python course.py experiment T99.1`."]
    assert main(["--check", "T99.1"]) == 1


def test_a_new_seed_is_measured_and_the_old_ones_are_kept(toy, capsys):
    path = toy()
    run("T99.1")
    before = json.loads(path.read_text(encoding="utf-8"))["runs"]
    toy(SOURCE.replace("range(3)", "range(4)"))
    assert problems("T99.1") == ["T99.1: arms or seeds are missing: run `python course.py experiment T99.1`."]
    capsys.readouterr()
    run("T99.1")
    assert "1/2" in capsys.readouterr().out
    assert json.loads(path.read_text(encoding="utf-8"))["runs"][:6] == before


def test_an_arm_with_other_settings_is_measured_again(toy):
    toy()
    run("T99.1")
    toy(SOURCE.replace('{"by": 1.0}', '{"by": 2.0}'))
    assert "other settings" in problems("T99.1")[0]
    run("T99.1")
    assert all(1.5 < value < 2.5 for value in evidence("T99.1").each("shifted", "mean"))


def test_another_conclusion_or_a_control_that_fails_is_told(toy):
    toy()
    run("T99.1")
    toy(SOURCE.replace("gap.above(0.5)", "gap.above(5)"))
    assert "the conclusion is another one" in problems("T99.1")[0]
    toy(SOURCE.replace('not shown["left alone"]', 'shown["left alone"]'))
    run("T99.1")
    assert "T99.1: control `shows_not` fails." in problems("T99.1")


def test_a_result_that_is_too_large_is_told(toy):
    toy(SOURCE.replace("[seed, by]", "[0.123456] * 20_000"))
    run("T99.1")
    assert "200,000" in problems("T99.1")[-1]


def test_the_live_slice_agrees_on_the_same_machine_and_a_change_is_told(toy):
    path = toy()
    run("T99.1")
    assert evidence("T99.1").again().startswith("Run again here (shifted, seed 1): mean 0.")
    assert evidence("T99.1").again().endswith("They agree.")
    content = json.loads(path.read_text(encoding="utf-8"))
    for each in content["runs"]:
        each["found"]["mean"] += 3
    path.write_text(json.dumps(content), encoding="utf-8")
    assert evidence("T99.1").again().endswith("mean differ by more than the seeds do.")


def test_what_is_missing_is_told_in_one_sentence(toy, capsys):
    toy()
    with pytest.raises(NoEvidence, match="python course.py experiment T99.1"):
        evidence("T99.1")
    assert main(["T77.7"]) == 1
    assert "There is no experiment for 'T77.7'; there is T99.1." in capsys.readouterr().err
    run("T99.1")
    with pytest.raises(NoEvidence, match="it has mean, curve"):
        evidence("T99.1").each("shifted", "median")


def test_the_list_says_minutes_and_question(toy, capsys):
    toy()
    main(["--list"])
    assert "no result" in capsys.readouterr().out
    run("T99.1")
    main(["--list"])
    assert "0.0 min  2 arms × 3 seeds  Does the shift show?" in capsys.readouterr().out


def test_an_interval_is_students():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)  # t(0.975, 2) from a table
    assert found.above(-1) and not found.above(0) and found.below(5) and found.within(-1, 5)
    assert found.text() == "-0.48 to 4.48"


def test_one_value_decides_nothing():
    one = interval([5.0])
    assert not one.above(0) and not one.below(10) and not one.within(0, 10) and isinstance(one, Interval)
    with pytest.raises(NoEvidence):
        interval([])


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (38, 40), (40, 40), (20, 40), (1, 1), (3, 7)])
def test_a_share_has_wilsons_interval(hits, n):
    from scipy.stats import binomtest

    found, theirs = wilson(hits, n), binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.mean, found.n) == (hits / n, n)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= found.low <= found.mean <= found.high <= 1


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_no_share_of_nothing_and_none_above_one(hits, n):
    with pytest.raises(NoEvidence):
        wilson(hits, n)


def test_a_factor_is_a_geometric_mean_over_the_seeds():
    runs = [{"arm": "a", "seed": seed, "found": {"x": 10.0**seed}} for seed in (2, 0, 1)]
    found = Evidence({"claim": "T99.1", "runs": runs}).factor(lambda each: 3 * each.each("a", "x")[0])
    assert (found.mean, found.n) == (pytest.approx(30), 3)
    assert found.high / found.mean == pytest.approx(found.mean / found.low)
    assert math.log(found.high / found.mean) == pytest.approx(4.302653 * math.log(10) / math.sqrt(3), rel=1e-5)
