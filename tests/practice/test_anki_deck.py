"""The deck for Anki: an update keeps the learner's history."""

import importlib.util
import os
import sqlite3
import time
import zipfile
from dataclasses import replace

import pytest
from practice.sessions import piped

from autograde.practice.anki import DECKS, MODEL_ID, write_deck
from autograde.practice.deck import cards, the_bank

CARDS = cards(the_bank())
SOME = [card for card in CARDS if card.question in ("T01", "D03")]
HINT = "Anki's own package isn't there: .venv/bin/python -m pip install -r requirements-anki.txt"


def notes(path) -> dict[str, tuple]:
    """guid, model and fields of every note in a deck, by the first field."""
    with zipfile.ZipFile(path) as package:
        package.extract("collection.anki2", path.parent)
    with sqlite3.connect(path.parent / "collection.anki2") as base:
        rows = base.execute("select guid, mid, flds from notes").fetchall()
    base.close()
    return {fields.split("\x1f")[0]: (guid, model, fields.split("\x1f")) for guid, model, fields in rows}


def test_the_ids_depend_on_nothing_but_the_cards_id(tmp_path):
    write_deck(tmp_path / "en.apkg", SOME, ["en"])
    other = [replace(card, front={"en": "Other.", "zh": "别的。"}) for card in reversed(SOME)]
    write_deck(tmp_path / "zh.apkg", other, ["zh"])
    first, second = notes(tmp_path / "en.apkg"), notes(tmp_path / "zh.apkg")
    assert {name: one[:2] for name, one in first.items()} == {name: one[:2] for name, one in second.items()}
    assert len({guid for guid, *_ in first.values()}) == len(SOME)
    assert second["T01"][2][1] == "<p>别的。</p>"
    # Once published, these stay: Anki would make a second deck beside the learner's.
    assert first["T01"][0] == "xqmt8)M:^Q"
    assert MODEL_ID == 1_703_260_511 and [number for number, _ in DECKS.values()] == [
        1_703_260_521 + k for k in range(3)
    ]


def test_two_cards_with_one_id_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the same id"):
        write_deck(tmp_path / "deck.apkg", [SOME[0], SOME[0]], ["en"])
    assert not list(tmp_path.iterdir())


def test_the_command_writes_every_card_in_both_languages(tmp_path):
    told = piped("autograde.practice.anki", ["--lang", "both", "deck.apkg"], "", tmp_path / "home", tmp_path)
    assert told.returncode == 0 and told.stderr == "" and f"Wrote {len(CARDS)} cards to deck.apkg" in told.stdout
    found = notes(tmp_path / "deck.apkg")
    assert set(found) == {card.id for card in CARDS}
    assert "What is the structure" in found["T01"][2][1] and "结构是什么" in found["T01"][2][1]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "the following arguments are required: OUT.apkg"),
        (["deck.zip"], 2, "should end in .apkg"),
        (["deck.apkg", "--topic", "nowhere"], 1, "there is no topic 'nowhere'"),
        (["file/deck.apkg"], 1, "file"),
    ],
)
def test_bad_options_get_one_sentence_and_leave_no_file(tmp_path, arguments, code, told):
    (tmp_path / "file").write_text("in the way")
    run = piped("autograde.practice.anki", arguments, "", tmp_path / "home", tmp_path)
    assert run.returncode == code and told in run.stderr and run.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_update_keeps_the_history_and_brings_the_new_text(tmp_path):
    if importlib.util.find_spec("anki") is None:
        (pytest.fail if os.environ.get("AUTOGRADE_TESTS_INSIST") else pytest.skip)(HINT)
    from anki.collection import Collection, ImportAnkiPackageOptions, ImportAnkiPackageRequest

    def imported(deck, languages, made):
        path = tmp_path / f"{made}.apkg"
        write_deck(path, deck, languages, made)
        asked = ImportAnkiPackageRequest(package_path=str(path), options=ImportAnkiPackageOptions())
        return collection.import_anki_package(asked).log

    collection, now = Collection(str(tmp_path / "collection.anki2")), time.time()
    try:
        assert len(imported(SOME, ["en"], now - 100).new) == len(SOME)
        collection.decks.select(collection.decks.id_for_name(DECKS["transformer"][1]))
        answered = collection.sched.getCard()
        collection.sched.answerCard(answered, 3)
        note = answered.note()
        assert note.fields[0] == "T01" and "What is the structure" in note.fields[1]

        edited = [replace(card, front={"en": f"Edited $x<{n}$", "zh": "改过的"}) for n, card in enumerate(SOME)]
        another = next(card for card in CARDS if card not in SOME)
        log = imported([*edited, another], ["en"], now)
        assert (len(log.new), len(log.updated)) == (1, len(SOME))
        after = collection.get_card(answered.id)
        assert after.reps == 1 and after.due == answered.due and after.queue == answered.queue != 0
        assert [entry.button_chosen for entry in collection.card_stats_data(after.id).revlog] == [3]
        assert after.note().fields[1] == r'<p>Edited <span class="math inline">\(x&lt;0\)</span></p>'

        imported(edited, ["zh"], now + 100)  # another language is the same cards
        assert collection.get_card(answered.id).note().fields[1] == "<p>改过的</p>"
        assert collection.card_count() == len(SOME) + 1
    finally:
        collection.close()
