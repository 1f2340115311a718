"""The question bank as data: every question once, and complete where a chapter answers it."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
import yaml
from real_course import chapters

from autograde.authoring import bank
from autograde.authoring.bank import VERDICTS
from autograde.repository import ROOT

BANK = bank.load(ROOT)
IDS = [f"T{i:02}" for i in range(1, 11)] + [f"A{i:02}" for i in range(1, 14)] + [f"D{i:02}" for i in range(1, 4)]
ANSWERED = sorted({question for chapter in chapters() for question in chapter.questions})


def test_nothing_is_wrong_in_the_bank():
    assert BANK.problems == []


def test_a_key_that_stands_there_twice_is_told(tmp_path):
    (tmp_path / "interview").mkdir()
    text = "- id: T01\n  claims:\n    - id: T01.1\n      verdict: correct\n      verdict: wrong\n"
    (tmp_path / "interview" / "transformer.yaml").write_text(text, encoding="utf-8")
    assert any("'verdict' stands there twice" in problem for problem in bank.load(tmp_path).problems)


def test_every_question_stands_there_once_and_in_order():
    assert [entry["id"] for entry in BANK.entries] == IDS


@pytest.mark.parametrize("entry", BANK.entries, ids=lambda e: e["id"])
def test_every_question_has_both_languages(entry):
    assert not entry["zh"].isascii()  # one is "temperature、top_p、top_k"
    assert entry["en"].strip() and not is_chinese(entry["en"])


@pytest.mark.parametrize("question", ANSWERED)
def test_an_answered_question_has_all_parts(question):
    entry = BANK.questions[question]
    pairs = [entry["short"], entry["depth"], entry["trap"]]
    pairs += [part for follow_up in entry["follow_ups"] for part in (follow_up["q"], follow_up["a"])]
    for claim in entry["claims"]:
        pairs += [claim["says"], claim["right"]]
        assert claim["verdict"] in VERDICTS, claim["id"]
        assert claim["source"].strip(), claim["id"]
        assert claim["id"].startswith(f"{question}.")
    assert all(pair["en"].strip() and is_chinese(pair["zh"]) for pair in pairs)
    assert len(entry["follow_ups"]) >= 3
    assert entry["claims"]


def own_pairs(entry):
    """The texts that are ours, in both languages: all but the sentences quoted from study notes and the question."""
    yield from (entry["short"], entry["depth"], entry["trap"], *(claim["right"] for claim in entry["claims"]))
    yield from (claim["no_run"] for claim in entry["claims"] if "no_run" in claim)
    yield from (part for follow_up in entry["follow_ups"] for part in (follow_up["q"], follow_up["a"]))


@pytest.mark.parametrize("question", IDS)
def test_chinese_text_has_chinese_punctuation(question):
    entry = BANK.questions[question]
    told = [pair["zh"] for pair in own_pairs(entry)] + [c["says"]["zh"] for c in entry["claims"]] + [entry["zh"]]
    texts = [re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", "x", text) for text in told]
    half = r".{0,8}(?:[\u4e00-\u9fff][*]{0,2}[,:;?!(]|(?<!\d)[,;?!)][\u4e00-\u9fff]).{0,8}"
    assert [found for text in texts for found in re.findall(half, text)] == []
    assert [found for text in texts for found in re.findall(r".{0,8}\d to .{0,8}", text)] == []  # results write so
    loose = [found for text in texts for found in re.findall(r".{0,8}[，。：；？！）] .{0,8}", text)]
    assert [one for one in loose if "|" not in one] == []
    # Brackets of a source, which stand behind Latin letters or a line's end as well, and quotation marks.
    assert [found for text in texts for found in re.findall(r"\([^()]*(?:et al\.|arXiv)[^()]*\)", text)] == []
    ours = [re.sub(r"`[^`]*`", "x", pair["zh"]) for pair in own_pairs(entry)]
    assert [found for text in ours for found in re.findall(r'"[^"]*[\u4e00-\u9fff][^"]*"', text)] == []
    formulas = [found for text in told for found in re.findall(r"\$[^$]+\$", text.replace("$$", "$"))]
    assert [one for one in formulas if re.search("[，。：；？（）]", one)] == []


@pytest.mark.parametrize("question", IDS)
def test_the_chinese_is_as_deep_as_the_english(question):
    """A Chinese text says the same in 0.3 to 0.6 of the signs; and no table or list item is left out."""
    entry = BANK.questions[question]
    for part in ("short", "depth", "trap"):
        assert 0.27 < len(entry[part]["zh"]) / len(entry[part]["en"]) < 0.75, part
    for one in entry["follow_ups"]:
        assert 0.22 < len(one["a"]["zh"]) / len(one["a"]["en"]) < 0.75, one["id"]
    rows = [len(re.findall(r"(?m)^\|", entry["depth"][language])) for language in ("en", "zh")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("question", IDS)
def test_something_of_the_last_years_is_asked(question):
    follow_ups = BANK.questions[question]["follow_ups"]
    assert any(re.search(r"202[4-6]|2024-26|2025–26", one["q"]["en"] + one["a"]["en"]) for one in follow_ups)


@pytest.mark.parametrize("question", IDS)
def test_a_question_names_exercises_of_each_of_its_chapters(question):
    exercises = BANK.questions[question]["exercises"]
    answering = {chapter.path: chapter for chapter in chapters() if question in chapter.questions}
    assert set(exercises) == set(answering)
    for path, names in exercises.items():
        assert set(names) <= {cell.name for cell in answering[path].of("exercise")}, path


GLOSSARY = yaml.safe_load((ROOT / "interview" / "glossary.yaml").read_text(encoding="utf-8"))


def test_one_term_for_one_thing():
    ours = {entry["id"]: "\n".join(pair["zh"] for pair in own_pairs(entry)) for entry in BANK.entries}
    strange = [(name, word) for term in GLOSSARY for word in term["not"] for name in ours if word in ours[name]]
    assert strange == []
    whole = "\n".join([*ours.values(), *(entry["zh"] for entry in BANK.entries)])
    assert [term["zh"] for term in GLOSSARY if term["zh"] not in whole] == []
    assert len({term["en"] for term in GLOSSARY}) == len(GLOSSARY)


def test_no_claim_stands_twice():
    ids = Counter(claim["id"] for entry in BANK.entries for claim in entry.get("claims", []))
    assert [name for name, count in ids.items() if count > 1] == []


def test_every_claim_cell_and_the_bank_name_each_other():
    cells = {(cell.name, chapter.path) for chapter in chapters() for cell in chapter.of("claim")}
    assert cells == {(name, c["tested_in"]) for name, c in BANK.claims.items() if "tested_in" in c}


@pytest.mark.parametrize("claim", BANK.claims.values(), ids=lambda claim: claim["id"])
def test_a_claim_has_a_run_or_says_why_none_is_possible(claim):
    assert ("tested_in" in claim) != ("no_run" in claim)
    for language, why in claim.get("no_run", {}).items():
        assert re.fullmatch(r"[^.]{20,}\.|[^。]{8,}。", re.sub(r"et al\.|(?<=\d)\.(?=\d)", "", why)), "one sentence"
        assert is_chinese(why) == (language == "zh")
        assert why in bank.grounds(claim, language)


@pytest.mark.parametrize("question", IDS)
def test_answers_that_are_spoken_do_not_speak_of_the_course(question):
    entry = BANK.questions[question]
    told = [entry["short"], entry["depth"], entry["trap"], *(one["a"] for one in entry["follow_ups"])]
    text = "\n".join(each[language] for each in told for language in ("en", "zh"))
    assert re.findall(r".{20}(?:\bthe chapter|this chapter|\bour (?:small|tiny|run)|本章|我们的小).{0,20}", text) == []


@pytest.mark.parametrize("chapter", [c for c in chapters() if c.questions], ids=lambda c: c.path)
def test_a_chapter_settles_a_claim_of_its_questions(chapter):
    assert chapter.of("claim")
    assert {cell.name.split(".")[0] for cell in chapter.of("claim")} <= set(chapter.questions)


def untold(text: str, numbers: dict[str, dict[str, str]]) -> list[str]:
    """The gains of a text that may be none: those whose interval holds zero and isn't told beside them."""
    named, found = set(re.findall(r"\{(\w+\.\d+):(\w+)\}", text)), []
    for claim, name in named:
        gain, interval = (numbers[claim].get(key, "").replace("−", "-") for key in (name, f"{name}_range"))
        ends = [float(end) for end in re.findall(r"[+-]\d[\d.]*", interval)]
        if gain[:1] in ("+", "-") and ends and min(ends) <= 0 <= max(ends) and (claim, f"{name}_range") not in named:
            found.append(f"{claim}:{name}")
    return sorted(found)


@pytest.mark.parametrize("path", sorted((ROOT / "interview").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_gain_that_may_be_none_has_its_interval_beside_it(path):
    results = (ROOT / "experiments" / "results").glob("*.json")
    numbers = {result.stem: json.loads(result.read_text(encoding="utf-8"))["numbers"] for result in results}
    told = texts(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert [gain for text in told for gain in untold(text, numbers)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SwiGLU gained {T1.1:a} nats.", ["T1.1:a"]),
        ("SwiGLU gained {T1.1:a} nats ({T1.1:a_range}).", []),
        ("Muon gained {T1.1:b}, GELU {T1.1:c}.", ["T1.1:c"]),
        ("It repeats {T1.1:d} of its phrases.", []),
    ],
)
def test_a_gain_without_its_interval_is_seen(text, found):
    numbers = {"a": "+0.008", "a_range": "−0.007 to +0.023", "b": "+0.05", "b_range": "+0.04 to +0.06", "c": "−0.001",
               "c_range": "−0.005 to +0.002", "d": "1 %", "d_range": "-1 to 3 %"}
    assert untold(text, {"T1.1": numbers}) == found


def texts(value) -> list[str]:
    """All texts in what a YAML file holds."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in inside for text in texts(item)]


def is_chinese(text: str) -> bool:
    return any("一" <= letter <= "鿿" for letter in text)
