"""When a card comes again, by a clock that stands, and the file that keeps it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from autograde.practice.deck import Card
from autograde.practice.drill import drill_on, when
from autograde.practice.schedule import Drill, weakness
from autograde.repository import ROOT

START = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
DECK = [
    Card(name, "T01", "transformer", kind, {"en": "?"}, {"en": "."}, {})
    for name, kind in [("T01", "question"), ("T01.1", "claim"), ("T01.f1", "follow-up")]
]


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABKIT_NO_PROGRESS", raising=False)
    return tmp_path / "home"


@pytest.fixture
def clock():
    return Clock()


def test_the_dates_are_those_of_fsrs(clock):
    drill = Drill(DECK, clock)
    assert drill.rate("T01", 3) == START + timedelta(minutes=10)
    clock.now += timedelta(minutes=10)
    assert drill.rate("T01", 3) == clock.now + timedelta(days=2)
    clock.now += timedelta(days=2)
    assert drill.rate("T01", 3) == clock.now + timedelta(days=11)  # its interval grows: 2.3 days of stability to 11
    clock.now += timedelta(days=11)
    assert drill.rate("T01", 1) == clock.now + timedelta(minutes=10)  # forgotten: learned again
    assert drill.rate("T01.f1", 4) == clock.now + timedelta(days=8)


def test_what_is_due_comes_first_then_so_many_new_ones_then_what_is_being_learned(clock):
    drill = Drill(DECK, clock)
    assert drill.following(new=1).id == "T01"
    drill.rate("T01", 3)
    assert drill.following(new=1).id == "T01.f1"  # follow-ups before the sentences of study notes
    assert drill.following(new=0).id == "T01"  # 10 minutes early, as nothing else is left
    clock.now += timedelta(minutes=10)
    assert drill.following(new=1).id == "T01" and [card.id for card in drill.due()] == ["T01"]
    drill.rate("T01", 3)
    assert drill.following(new=0) is None and drill.next_due() == clock.now + timedelta(days=2)


def test_another_process_goes_on_where_this_one_stopped(clock):
    Drill(DECK, clock).rate("T01", 2)
    Drill(DECK, clock).rate("T01.f1", 3)
    assert {name: [rating for _, rating in rated] for name, rated in Drill(DECK, clock).ratings().items()} == {
        "T01": [2],
        "T01.f1": [3],
    }


def test_ratings_of_two_processes_at_once_are_all_kept(home):
    program = (
        "import sys; from autograde.practice.drill import drill_on\n"
        "for card in list(drill_on('T07').cards)[int(sys.argv[1])::2]: drill_on('T07').rate(card, 3)"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(half)], cwd=ROOT) for half in (0, 1)]
    assert [process.wait() for process in running] == [0, 0]
    stored = json.loads((home / "drill.json").read_text(encoding="utf-8"))
    assert set(stored) == set(drill_on("T07").cards) and all(len(one["ratings"]) == 1 for one in stored.values())


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"T01": 3}', '{"T01": {"fsrs": {}, "ratings": []}}', '{"T01": {"ratings": [["", 9]]}}', "\udcff"],
)
def test_a_damaged_file_is_set_aside(home, clock, content):
    home.mkdir()
    (home / "drill.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert Drill(DECK, clock).ratings() == {}
    Drill(DECK, clock).rate("T01", 3)
    assert list(Drill(DECK, clock).ratings()) == ["T01"]
    assert (home / "drill.damaged.json").read_bytes() == content.encode("utf-8", "surrogateescape")


def test_a_card_that_the_bank_no_longer_has_keeps_its_history(home, clock):
    Drill(DECK, clock).rate("T01", 3)
    fewer = Drill(DECK[1:], clock)
    fewer.rate("T01.1", 3)
    assert list(fewer.ratings()) == ["T01.1"] and set(Drill(DECK, clock).ratings()) == {"T01", "T01.1"}


def test_where_nothing_can_be_written_the_session_remembers(home, clock, monkeypatch):
    def full(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    drill = Drill(DECK, clock)
    drill.rate("T01", 3)
    drill.rate("T01.f1", 1)
    assert not drill.saved and set(drill.ratings()) == {"T01", "T01.f1"}
    assert not list(home.glob("*.json"))
    monkeypatch.undo()
    monkeypatch.setenv("LABKIT_HOME", str(home))
    drill.rate("T01", 3)
    assert drill.saved and [len(rated) for rated in Drill(DECK, clock).ratings().values()] == [2, 1]


def test_switched_off_it_reads_and_writes_nothing(home, clock, monkeypatch):
    Drill(DECK, clock).rate("T01", 3)
    before = (home / "drill.json").read_bytes()
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")
    drill = Drill(DECK, clock)
    drill.rate("T01.f1", 3)
    assert list(drill.ratings()) == ["T01.f1"] and not drill.saved
    assert (home / "drill.json").read_bytes() == before


def test_a_question_that_went_badly_wants_more_practice_than_a_new_or_a_known_one(clock):
    drill = Drill(DECK, clock)
    new = weakness(drill, "T01")
    drill.rate("T01", 4)
    known = weakness(drill, "T01")
    drill.rate("T01.f1", 1)
    poor = weakness(drill, "T01")
    assert (known[0], new[0], poor[0]) == (0.2, 1.0, 3.0)
    assert (known[1], new[1], poor[1]) == ("well known", "new", "rated again on 1 of 2 cards")


@pytest.mark.parametrize(
    ("rest", "en", "zh"),
    [
        (timedelta(0), "in 0 min", "0 分钟后"),
        (timedelta(seconds=61), "in 2 min", "2 分钟后"),
        (timedelta(minutes=59), "in 59 min", "59 分钟后"),
        (timedelta(hours=5), "in 5 h", "5 小时后"),
        (timedelta(hours=23, minutes=30), "in 1 day", "1 天后"),
        (timedelta(days=11), "in 11 days", "11 天后"),
    ],
)
def test_a_date_in_words(rest, en, zh):
    assert (when(START + rest, START, "en"), when(START + rest, START, "zh")) == (en, zh)
