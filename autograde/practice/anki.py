"""`python course.py cards OUT.apkg`: the bank as a deck for Anki. An update keeps what a learner's Anki knows of it.

Anki recognizes a note by its guid, a note type by its id, and a deck by its name (ids of decks it gives anew). All of
them are made from what doesn't change: the cards' ids and the constants below. So a deck in another language, or with
better wording, replaces the text of the notes that are there and leaves their history alone.
"""

from __future__ import annotations

import html
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import genanki

from autograde.practice.deck import LANGUAGES, Card, cards, questions_on, the_bank
from autograde.practice.markup import anki_html
from autograde.practice.terminal import Parser, run
from autograde.practice.words import WORDS

__all__ = ["write_deck"]

# Once given, never changed: Anki would take the deck for another one.
MODEL_ID = 1_703_260_511
DECKS = {
    "transformer": (1_703_260_521, "Transformer interview::1 Transformer"),
    "applications": (1_703_260_522, "Transformer interview::2 Applications"),
    "data_parallel": (1_703_260_523, "Transformer interview::3 Data parallel"),
}
_STYLE = """
.card { font-family: system-ui, sans-serif; font-size: 18px; line-height: 1.5; text-align: left;
        max-width: 44em; margin: 0 auto; padding: 0 .6em; }
table { border-collapse: collapse; } td, th { border: 1px solid #8888; padding: .2em .5em; }
code { font-size: 90%; } .id { color: #767676; font-size: 80%; } blockquote { margin-left: 1em; }
"""
_FIELDS = ["Id", "Front", "Back", "Links"]
_FRONT = '<div class="id">{{Id}}</div>{{Front}}'
_BACK = '{{FrontSide}}<hr id="answer">{{Back}}<div class="id">{{Links}}</div>'


class _Note(genanki.Note):
    @property
    def guid(self) -> str:
        return genanki.guid_for("transformer-course", self.fields[0])


def _model() -> genanki.Model:
    template = {"name": "Card", "qfmt": _FRONT, "afmt": _BACK}
    fields = [{"name": name} for name in _FIELDS]
    return genanki.Model(MODEL_ID, "Transformer interview", fields=fields, templates=[template], css=_STYLE)


def write_deck(path: Path, deck: Sequence[Card], languages: Sequence[str], made: float | None = None) -> None:
    """Write cards as an .apkg file, whole or not at all.

    languages: whose texts are on a card, one below the other
    made:      the time of writing in seconds since 1970, now if None. Anki takes over a text that was made later.

    Raises ValueError where an id is there twice, and OSError.
    """
    if len({card.id for card in deck}) != len(deck):
        raise ValueError("two cards have the same id, and Anki would take them for one")
    model, decks = _model(), {name: genanki.Deck(number, title) for name, (number, title) in DECKS.items()}
    for card in deck:
        front, back = ("<hr>".join(anki_html(side[lang]) for lang in languages) for side in (card.front, card.back))
        fields = [card.id, front, back, html.escape(_links(card, languages[0]))]
        tags = [card.section, card.kind, card.question]
        decks[card.section].add_note(_Note(model=model, fields=fields, tags=tags, due=len(decks[card.section].notes)))
    package = genanki.Package([one for one in decks.values() if one.notes])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        new = Path(folder, "deck.apkg")
        package.write_to_file(str(new), timestamp=made)
        new.replace(path)


def _links(card: Card, lang: str) -> str:
    found = [f"{chapter}: {', '.join(names)}" for chapter, names in card.exercises.items()]
    return f"{WORDS[lang]['exercises']}: {'; '.join(found)}" if found else ""


def main() -> int:
    parser = Parser("course.py cards", description="Write the interview bank as a deck for Anki.")
    parser.add_argument("out", type=Path, metavar="OUT.apkg", help="the file to write; one that is there is replaced")
    parser.add_argument("--lang", choices=[*LANGUAGES, "both"], default="en", help="one language, or both on each card")
    parser.add_argument(
        "--topic", help="a section, a chapter such as rope, a question such as T04; several with commas"
    )
    options = parser.parse_args()
    if options.out.suffix != ".apkg":
        parser.error(f"the name of the deck should end in .apkg, and {options.out} doesn't")
    bank = the_bank()
    wanted = set(questions_on(options.topic, bank))
    deck = [card for card in cards(bank) if card.question in wanted]
    write_deck(options.out, deck, LANGUAGES if options.lang == "both" else [options.lang])
    print(f"Wrote {len(deck)} cards to {options.out}. In Anki: File, Import. Importing again keeps your history.")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "course.py cards"))
