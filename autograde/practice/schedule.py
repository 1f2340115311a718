"""Which card comes next, and when a card comes again: FSRS, and one file that keeps it.

The file is `drill.json` beside `progress.json` (see labkit.store). Per card it holds what FSRS knows of it and the
ratings given, newest last, as [time, rating].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import fsrs

from autograde.practice.deck import KINDS, Card
from autograde.practice.kept import Kept
from labkit.store import is_off

__all__ = ["AHEAD", "Drill", "LOST", "RATINGS", "weakness"]

RATINGS = {"again": 1, "hard": 2, "good": 3, "easy": 4}
AHEAD = timedelta(minutes=20)  # a card that is being learned comes that much early, where nothing else is left
LOST = 0.6  # FSRS's probability of recall below which a card counts as weak
_LONGEST = 200  # ratings of one card that are kept


def _now() -> datetime:
    return datetime.now(UTC)


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    fsrs.Card.from_dict(entry["fsrs"])
    ratings = [[datetime.fromisoformat(time).isoformat(), int(rating)] for time, rating in entry["ratings"]]
    if not all(1 <= rating <= 4 for _, rating in ratings):
        raise ValueError("no rating")
    return {"fsrs": entry["fsrs"], "ratings": ratings}


class Drill:
    """A learner's deck.

    cards: the cards to choose from, in the order in which new ones are met
    clock: gives the time, in UTC
    """

    def __init__(self, cards: Sequence[Card], clock: Callable[[], datetime] = _now):
        self.cards = {card.id: card for card in cards}
        self._clock, self._kept = clock, Kept("drill", _entry)
        # Without FSRS's random shift of the dates, which is for decks of thousands of cards.
        self._scheduler = fsrs.Scheduler(enable_fuzzing=False)
        self.saved = not is_off()

    def known(self) -> dict[str, fsrs.Card]:
        """What FSRS knows of the cards that were rated before, by id."""
        stored = self._kept.load()
        return {name: fsrs.Card.from_dict(stored[name]["fsrs"]) for name in self.cards if name in stored}

    def ratings(self) -> dict[str, list[tuple[datetime, int]]]:
        """Every rating given, oldest first, by the card's id."""
        stored = self._kept.load()
        return {
            name: [(datetime.fromisoformat(t), r) for t, r in stored[name]["ratings"]]
            for name in self.cards
            if name in stored
        }

    def due(self) -> list[Card]:
        """The cards whose time has come, the longest overdue first."""
        known, now = self.known(), self._clock()
        return [self.cards[name] for name in sorted(known, key=lambda name: known[name].due) if known[name].due <= now]

    def new(self) -> list[Card]:
        """The cards that were never rated: questions first, then follow-ups, then claims."""
        known = self.known()
        unmet = [card for card in self.cards.values() if card.id not in known]
        return sorted(unmet, key=lambda card: KINDS.index(card.kind))

    def following(self, new: int) -> Card | None:
        """The card to show now: one that is due, else one of `new` new ones, else one being learned, else None."""
        if due := self.due():
            return due[0]
        if new > 0 and (unmet := self.new()):
            return unmet[0]
        known, soon = self.known(), self._clock() + AHEAD
        learned = [n for n, one in known.items() if one.state != fsrs.State.Review and one.due <= soon]
        return self.cards[min(learned, key=lambda name: known[name].due)] if learned else None

    def next_due(self) -> datetime | None:
        """When the next card that was rated before is due."""
        return min((one.due for one in self.known().values()), default=None)

    def rate(self, card: str, rating: int) -> datetime:
        """Note a rating from 1 (again) to 4 (easy). Gives the time at which the card is due again."""
        now, due = self._clock(), []

        def edit(state: dict[str, Any]) -> None:
            one = state.setdefault(card, {"fsrs": fsrs.Card(card_id=0, due=now).to_dict(), "ratings": []})
            after, _ = self._scheduler.review_card(fsrs.Card.from_dict(one["fsrs"]), fsrs.Rating(rating), now)
            one["fsrs"], one["ratings"] = after.to_dict(), [*one["ratings"], [now.isoformat(), rating]][-_LONGEST:]
            due.append(after.due)

        self.saved = self._kept.change(edit)
        return due[-1]

    def recall(self, card: str) -> float | None:
        """FSRS's probability that the card is known now; None where it was never rated."""
        known = self.known().get(card)
        return None if known is None else self._scheduler.get_card_retrievability(known, self._clock())

    def now(self) -> datetime:
        return self._clock()


def weakness(drill: Drill, question: str) -> tuple[float, str]:
    """How much a question wants practice, at least 0.2, and why in a few words. 1.0 for one that was never rated."""
    mine = {name: rated for name, rated in drill.ratings().items() if drill.cards[name].question == question}
    if not mine:
        return 1.0, "new"
    last = [rated[-1][1] for rated in mine.values()]
    if poor := sum(rating == RATINGS["again"] for rating in last):
        return 3.0, f"rated again on {poor} of {len(last)} cards" if len(last) > 1 else "rated again last time"
    faded = [name for name in mine if (drill.recall(name) or 0.0) < LOST]
    if faded or RATINGS["hard"] in last:
        return 2.0, "rated hard last time" if not faded else "not seen for long"
    return 0.2, "well known"
