"""The bank as cards: ids that last, topics, markdown that each reader understands."""

import re

import pytest

from autograde.authoring.bank import Bank
from autograde.practice import markup
from autograde.practice.deck import cards, chapters, questions_on, the_bank
from autograde.practice.rubric import rubric

BANK = the_bank()
CARDS = cards(BANK)
TEXTS = [(card.id, text) for card in CARDS for side in (card.front, card.back) for text in side.values()]


def test_every_question_follow_up_and_claim_is_one_card():
    ids = [card.id for card in CARDS]
    follow_ups = sum(len(entry["follow_ups"]) for entry in BANK.entries)
    assert len(set(ids)) == len(ids) == len(BANK.entries) + follow_ups + len(BANK.claims)
    assert all(set(card.front) == set(card.back) == {"en", "zh"} for card in CARDS)
    assert all(text for _, text in TEXTS)


def test_an_edit_of_the_wording_and_a_new_follow_up_leave_the_ids():
    entry = BANK.questions["T06"]
    new = {"id": "T06.f99", "q": {"en": "New?", "zh": "新？"}, "a": {"en": "New.", "zh": "新。"}}
    edited = {**entry, "en": "Other words?", "follow_ups": [new, *entry["follow_ups"]]}
    before, after = ([card.id for card in cards(Bank([one]))] for one in (entry, edited))
    assert [name for name in after if name != "T06.f99"] == before


@pytest.mark.parametrize(
    ("topic", "found"),
    [
        ("rope", ["T04", "T05"]),
        ("01_transformer/04_rope", ["T04", "T05"]),
        ("T10, t01", ["T01", "T10"]),
        ("data-parallel", ["D01", "D02", "D03"]),
    ],
)
def test_a_topic_is_a_section_a_chapter_or_a_question(topic, found):
    assert questions_on(topic, BANK) == found


@pytest.mark.parametrize(
    ("topic", "told"), [("rop", "did you mean rope"), ("zzz", "take transformer, applications"), (",", "name a topic")]
)
def test_another_topic_is_answered_by_one_sentence(topic, told):
    with pytest.raises(ValueError, match=told) as error:
        questions_on(topic, BANK)
    assert "\n" not in str(error.value)


def test_without_the_bank_one_sentence_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"can't be read: interview/transformer.yaml is missing"):
        the_bank(tmp_path)


def test_every_chapter_with_questions_is_a_topic():
    assert {name for asked in chapters(BANK).values() for name in asked} == set(BANK.questions)


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (r"(R_m q)^\top (R_n k) = q^\top R_{n-m}\,k", "(R_m q)ᵀ (R_n k) = qᵀ R_(n-m) k"),
        (r"\frac{\partial L}{\partial h_l}", "(∂L)/(∂h_l)"),
        (r"1/\sqrt{2L} + \sqrt n", "1/√(2L) + √n"),
        (r"\text{softmax}(QK^\top/\sqrt{d_k})\,V", "softmax(QKᵀ/√(d_k)) V"),
        (r"\binom{n-c}{k}/\binom nk", "C(n-c, k)/C(n, k)"),
        (r"\{a \in B\}", "{a ∈ B}"),
    ],
)
def test_a_formula_as_a_line_of_text(formula, text):
    assert markup.plain(formula) == text


def test_no_formula_of_the_bank_keeps_a_backslash_or_a_brace_as_text():
    formulas = {found for _, text in TEXTS for pair in markup._FORMULA.findall(text) for found in pair if found}
    assert len(formulas) > 100
    assert [one for one in formulas if re.search(r"\\|(?<!\\)[{}]", markup.plain(one))] == []


def test_anki_gets_its_own_marks_for_formulas_and_no_tags_from_the_text():
    made = markup.anki_html("If $a < b$ and x<y: **bold**\n\n$$c^2$$")
    assert r"\(a &lt; b\)" in made and r"\[c^2\]" in made and "x&lt;y" in made and "<strong>bold</strong>" in made
    for name, text in TEXTS:
        html = markup.anki_html(text)
        bare = re.sub(r"\\\(.*?\\\)|\\\[.*?\\\]|<code>.*?</code>", "", html, flags=re.DOTALL)
        assert "$" not in bare and not re.search(r"\\[a-z]", bare), name
        assert html.count("<table>") == html.count("</table>") == len(re.findall(r"^ *\|[-|: ]+\|$", text, re.M)), name


def test_a_rubric_has_short_deep_points_and_the_trap():
    for entry in BANK.entries:
        for lang in ("en", "zh"):
            points = rubric(entry, lang)
            kinds = [point.kind for point in points]
            assert kinds == sorted(kinds, key=["short", "depth", "trap"].index) and kinds[-1] == "trap"
            assert kinds.count("short") >= 2 and kinds.count("depth") >= 2, (entry["id"], lang)
            assert not any("|--" in point.text or not point.text.strip() for point in points)
            assert "".join(entry["short"][lang].split()) == "".join(
                "".join(point.text.split()) for point in points if point.kind == "short"
            )
