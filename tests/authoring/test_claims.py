"""Claims: every committed result fits its experiment and the bank; no new finding stands fixed in a chapter."""

from __future__ import annotations

import importlib
import json
import re

import pytest
import yaml
from real_course import chapters

from autograde.authoring import bank
from autograde.authoring.chapter import Cell, Chapter
from autograde.authoring.fixed import reasons, unbound, unruled
from autograde.repository import ROOT
from experiments.__main__ import problems
from labkit.experiment import Evidence, evidence, experiments, find_experiment, results_folder

# How many fixed findings still stand in chapters that aren't rebuilt yet. The numbers may only fall.
CLAIMS = experiments()


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.path)
def test_no_finding_stands_fixed(chapter):
    found = unbound(chapter, reasons(ROOT))
    assert not found, "\n".join(["Compute these from the run, or give a reason in solutions/fixed.yaml:", *found])


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.path)
def test_each_rule_stands_above_its_run(chapter):
    found = unruled(chapter)
    assert not found, "Say in the text above which result gives which verdict: " + "; ".join(found)


def test_every_reason_is_used():
    texts = {text for chapter in chapters() for text in unbound(chapter, {})}
    unused = [text for text in reasons(ROOT) if not any(line.endswith(f": {text}") for line in texts)]
    assert not unused


@pytest.mark.parametrize(
    ("text", "code", "count"),
    [
        ("*Correct* if it is over 2, *wrong* if not.", 'verdict("T1", "correct" if x > 2 else "wrong", "so")', 0),
        ("**Before the run:** *correct* above 2.", 'verdict("T1", "correct" if x > 2 else "wrong", "so")', 1),
        ("It may be wrong.", 'verdict("T1", word, "so")', 1),
        ("*Wrong* if it is under 2.", 'verdict("T1", word, "so")', 0),
        ("*Wrong* if it is under 2.", "print(x)", 1),
    ],
)
def test_a_missing_rule_is_seen(text, code, count):
    assert len(unruled(chapter_of(("markdown", text), ("demo", "x = 1"), ("claim", code)))) == count


def test_a_rule_is_that_of_the_next_claim_alone():
    text, code = "*Correct* if so, *wrong* if not.", 'verdict("T1", word, "so")'
    assert len(unruled(chapter_of(("markdown", text), ("claim", code), ("markdown", "And now?"), ("claim", code)))) == 1


def chapter_of(*cells: tuple[str, str]) -> Chapter:
    return Chapter("x/y", cells=[Cell(kind, source, number) for number, (kind, source) in enumerate(cells, 1)])


@pytest.mark.parametrize(
    ("kind", "source", "count"),
    [
        ("demo", 'show(fig, alt="A curve", title="Longer is better")', 1),
        ("demo", 'show(fig, alt="Loss falls", title="Loss")', 1),
        ("demo", 'show(fig, "Loss falls", "Longer is better")', 2),
        ("demo", 'show(fig, alt="A curve", title=f"Longer is {word}")', 0),
        ("payoff", 'ax.set_title("9 of 10")', 1),
        ("setup", 'show(fig, title="Longer is better")', 0),
        ("markdown", "Longer is better.", 0),
    ],
)
def test_a_fixed_finding_is_seen(kind, source, count):
    assert len(unbound(chapter_of((kind, source)), {})) == count


def test_sentences_under_a_claim_count_up_to_the_next_heading():
    cells = ("claim", "x = 1"), ("markdown", "It is smaller. So it is.\n\n## More\n\nLarger still.")
    assert [line.split(": ", 1)[1] for line in unbound(chapter_of(*cells), {})] == ["It is smaller."]
    assert not unbound(chapter_of(*cells), {"It is smaller.": "a theorem"})


def test_numbers_of_a_source_and_quoted_words_are_no_findings():
    text = (
        'So says Xu et al. (2022, arXiv:2206.02369, section 3.2). "Longer is better", says the bank. It grows. See '
        "[them](https://x.org/1) and table 3."
    )
    assert [line.split(": ", 1)[1] for line in unbound(chapter_of(("claim", "x = 1"), ("markdown", text)), {})] == [
        "It grows."
    ]


def untold(place: str, text: str) -> list[str]:
    """Which scripts of findings/ a text names wrongly: there is none, or it has another version of the library."""
    wrong = []
    for name in re.findall(r"findings/(\w+\.sh)", text):
        script = ROOT / "findings" / name
        if not script.is_file():
            wrong.append(f"{place}: there is no findings/{name}")
            continue
        versions = re.findall(r"[\w.-]+ \d[\w.]*(?=[:,])", script.read_text(encoding="utf-8").splitlines()[1])
        if not any(re.search(rf"{re.escape(version)}(?![\w.]*\d)", text) for version in versions):
            wrong.append(f"{place}: findings/{name} is about {' and '.join(versions)}")
    return wrong


def test_scripts_of_findings_that_are_named_are_there_with_their_version():
    told = {chapter.path: " ".join(cell.source for cell in chapter.cells) for chapter in chapters()}
    told |= {path: (ROOT / path).read_text(encoding="utf-8") for path in ("CONTRIBUTING.md", "docs/teaching.md")}
    named = [name for text in told.values() for name in re.findall(r"findings/\w+\.sh", text)]
    assert len(named) > 25
    assert [line for place, text in told.items() for line in untold(place, text)] == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("jiwer 4.0.0 joins: `findings/jiwer_joins_words_at_a_line_break.sh`.", 0),
        ("**jiwer 4.0.0**: `findings/jiwer_joins_words_at_a_line_break.sh`.", 0),
        ("jiwer 4.0.1 joins: `findings/jiwer_joins_words_at_a_line_break.sh`.", 1),
        ("jiwer 4.0.0.1 joins: `findings/jiwer_joins_words_at_a_line_break.sh`.", 1),
        ("jiwer joins: `findings/jiwer_joins_words_at_a_line_break.sh`.", 1),
        ("jiwer 4.0.0 joins: `findings/jiwer_joins_words.sh`.", 1),
    ],
)
def test_a_script_that_is_not_there_or_of_another_version_is_seen(text, count):
    assert len(untold("x", text)) == count


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_result_is_of_the_code_that_stands(claim):
    assert problems(claim) == []


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_experiment_names_its_controls_and_agrees_with_the_bank(claim):
    experiment = find_experiment(claim)
    for control in (experiment.shows, experiment.shows_not):
        assert control in experiment.arms or control.endswith("."), "an arm, or a sentence why there is none"
    assert experiment.live in experiment.plan()
    assert bank.load(ROOT).claims[claim]["verdict"] == evidence(claim).verdict


# Experiments that train each arm at several rates, and what names the arms in their code.
RATED = {"T05.2": "ENCODINGS", "T07.7": "ALONE", "T08.1": "PLANS", "T09.2": "ARMS"}


@pytest.mark.parametrize("claim", RATED)
def test_a_rate_is_chosen_on_validation_text_and_told_on_other(claim):
    code, found = importlib.import_module(f"experiments.{claim.replace('.', '_')}"), evidence(claim)
    parts = list(getattr(code, RATED[claim]))
    chosen = [code.best_rate(found, part) for part in parts]
    assert [code.best_rate(turned(found, {"test", "near", "far", "known"}), part) for part in parts] == chosen
    assert [code.best_rate(turned(found, {"validation"}), part) for part in parts] != chosen


def turned(found: Evidence, names: set[str]) -> Evidence:
    """The evidence with other signs in the numbers of these names: the best is the worst there."""

    def other(name, value):
        if name not in names:
            return value
        return [-each for each in value] if isinstance(value, list) else -value

    runs = [run | {"found": {name: other(name, value) for name, value in run["found"].items()}} for run in found.runs]
    return Evidence({"claim": found.claim, "runs": runs})


def test_no_result_is_left_over():
    assert {path.stem for path in results_folder().glob("*.json") if ".part" not in path.name} <= set(CLAIMS)


def test_cards_take_their_numbers_from_results(tmp_path):
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "interview").mkdir()
    result = {"claim": "T99.1", "numbers": {"gap": "0.1 to 0.2"}}
    (tmp_path / "experiments" / "results" / "T99.1.json").write_text(json.dumps(result), encoding="utf-8")
    for section in bank.SECTIONS:
        entry = {"id": "T99", "en": "The gap is {T99.1:gap}.", "zh": "{T99.1:width}"}
        text = yaml.safe_dump([entry] if section == "transformer" else [])
        (tmp_path / "interview" / f"{section}.yaml").write_text(text, encoding="utf-8")
    read = bank.load(tmp_path)
    assert read.questions["T99"]["en"] == "The gap is 0.1 to 0.2."
    assert "interview/: {T99.1:width} is no number of an experiment's result." in read.problems
