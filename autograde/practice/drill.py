"""`python course.py drill`: the bank's cards at a terminal, each when it is time for it."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

from autograde.practice.deck import LANGUAGES, Card, cards, questions_on, the_bank
from autograde.practice.schedule import Drill
from autograde.practice.terminal import END, ENTER, Parser, Terminal, run
from autograde.practice.words import WORDS
from labkit.store import folder

NEW = 5  # new cards a session


def drill_on(topic: str | None = None) -> Drill:
    """The drill with the cards of a topic (see `questions_on`). ValueError where there is no such topic."""
    bank = the_bank()
    wanted = set(questions_on(topic, bank))
    return Drill([card for card in cards(bank) if card.question in wanted])


def when(due: datetime | None, now: datetime, lang: str) -> str:
    """How long it is until then, in words: whole minutes, hours or days, rounded up."""
    if due is None:
        return WORDS[lang]["never"]
    rest = max(due - now, timedelta(0))
    for name, unit, most in (("minutes", timedelta(minutes=1), 60), ("hours", timedelta(hours=1), 24)):
        if (count := -(-rest // unit)) < most:
            return WORDS[lang][name].format(n=count)
    days = -(-rest // timedelta(days=1))
    return WORDS[lang]["day" if days == 1 else "days"].format(n=days)


def heading(card: Card, lang: str) -> str:
    return f"{card.id} · {WORDS[lang][card.kind]}"


def links(card: Card, lang: str) -> str:
    """Markdown: the exercises that belong to a card, by chapter."""
    title = f"*{WORDS[lang]['exercises']}*{'：' if lang == 'zh' else ': '}"
    parts = [f"{', '.join(f'`{name}`' for name in names)} ({chapter})" for chapter, names in card.exercises.items()]
    return f"{title}{'; '.join(parts)}" if parts else ""


def rating_prompt(lang: str) -> str:
    choices = "  ".join(f"{number} {name}" for number, name in enumerate(WORDS[lang]["ratings"], start=1))
    return f"{WORDS[lang]['rate']}  {choices}  q"


def session(terminal: Terminal, drill: Drill, lang: str, new: int) -> int:
    """Show cards until none is left or the learner ends. Gives the number of cards rated."""
    words, rated = WORDS[lang], 0
    due, unmet = len(drill.due()), len(drill.new())
    terminal.say(words["today"].format(due=due, new=min(new, unmet)))
    try:
        while card := drill.following(new):
            new -= card.id not in drill.known()
            if _ask(terminal, drill, card, lang):
                break
            rated += 1
    except KeyboardInterrupt:
        terminal.say()
    if not rated and drill.following(new) is None:
        terminal.say(words["nothing"].format(when=when(drill.next_due(), drill.now(), lang)))
    else:
        terminal.say(words["done"].format(count=rated))
    terminal.say(words["kept"].format(where=folder() / "drill.json") if drill.saved else words["not kept"])
    return rated


def _ask(terminal: Terminal, drill: Drill, card: Card, lang: str) -> bool:
    """Ask one card. True where the learner ended instead of rating it."""
    words = WORDS[lang]
    terminal.rule(heading(card, lang))
    terminal.show(card.front[lang])
    terminal.say()
    if terminal.key(words["think"], {ENTER, " ", END}) == END:
        return True
    terminal.show("\n\n".join(filter(None, [card.back[lang], links(card, lang)])))
    terminal.say()
    rating = terminal.key(rating_prompt(lang), {*"1234", END})
    if rating == END:
        return True
    due = drill.rate(card.id, int(rating))
    terminal.say(words["next"].format(when=when(due, drill.now(), lang)))
    return False


def main() -> int:
    parser = Parser("course.py drill", description="Practice the interview bank with spaced repetition (FSRS).")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="the language of the cards (default: en)")
    parser.add_argument(
        "--topic", help="a section, a chapter such as rope, a question such as T04; several with commas"
    )
    parser.add_argument("--new", type=int, default=NEW, metavar="N", help=f"at most so many new cards (default: {NEW})")
    options = parser.parse_args()
    if options.new < 0:
        parser.error("argument --new: takes 0 or more")
    session(Terminal(), drill_on(options.topic), options.lang, options.new)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "course.py drill"))
