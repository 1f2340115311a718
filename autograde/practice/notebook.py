"""`drill()` and `interview()` in a notebook: the same cards, the same file on this machine, with buttons."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import ipywidgets as widgets

from autograde.practice.deck import LANGUAGES, Card, the_bank
from autograde.practice.drill import NEW, drill_on, heading, links, when
from autograde.practice.interview import LONGEST, MINUTES, begun, drawn_now, new_folder, save_page
from autograde.practice.markup import anki_html
from autograde.practice.page import as_html, sections
from autograde.practice.rubric import rubric
from autograde.practice.schedule import RATINGS, Drill
from autograde.practice.session import Clock, Interview, Interviews, clock_text
from autograde.practice.tasks import DIFFICULTIES
from autograde.practice.words import WORDS
from labkit.display import kernel_shell
from labkit.errors import PlainError

__all__ = ["CantPractice", "drill", "interview"]


class CantPractice(PlainError, ValueError):
    """What was asked for can't be had. The message says why, in one sentence."""


def drill(lang: str = "en", topic: str | None = None, new: int = NEW) -> widgets.Widget:
    """Practice the interview bank's cards: think, look, rate. Each comes back when it is time (FSRS).

    lang:  "en" or "zh"
    topic: a section ("applications"), a chapter ("rope"), a question ("T04"), or several with commas; None for all
    new:   at most so many cards that were never rated

    Shows the first card, and gives the widget. Ratings are kept in `drill.json`, which `python course.py drill` reads,
    too. Raises CantPractice.
    """
    _known(lang=(lang, LANGUAGES))
    if not isinstance(new, int) or new < 0:
        raise CantPractice("drill: `new` is a whole number, 0 or more.")
    return DrillPanel(_or_sentence(lambda: drill_on(topic)), lang, new).box


def interview(
    topic: str | None = None,
    difficulty: str | None = None,
    minutes: float = MINUTES,
    lang: str = "en",
    seed: int | None = None,
    folder: str | None = None,
) -> widgets.Widget:
    """A mock interview: a coding task, then two questions, with a clock. What went wrong is told when it is over.

    topic:      as in `drill`
    difficulty: of the coding task: "easy", "medium" or "hard"; None for any
    minutes:    all together
    lang:       of the questions, "en" or "zh"
    seed:       draws the same again, as long as your results are the same
    folder:     where the task and the final page are written: a new one in the working folder if None

    The task also appears in a new cell below. One that isn't finished is continued. Gives the widget. Raises
    CantPractice.
    """
    _known(lang=(lang, LANGUAGES), difficulty=(difficulty, (None, *DIFFICULTIES)))
    if not isinstance(minutes, int | float) or not 0 < minutes <= LONGEST:
        raise CantPractice(f"interview: `minutes` is more than 0 and at most {LONGEST:.0f}.")

    def made() -> Interview:
        seed_ = random.SystemRandom().randrange(10_000) if seed is None else seed
        drawn, now = drawn_now(seed_, topic, difficulty), datetime.now()
        return begun(drawn, seed_, lang, minutes, Path(folder) if folder else new_folder(now), now)

    running = Interviews().current()
    return InterviewPanel(running or _or_sentence(made)).box


def _known(**given: tuple) -> None:
    for name, (value, allowed) in given.items():
        if value not in allowed:
            raise CantPractice(f"`{name}` is one of {', '.join(map(repr, allowed))}, and not {value!r}.")


def _or_sentence(make: Callable):
    try:
        return make()
    except (ValueError, OSError) as error:
        raise CantPractice(str(error)) from None


def _button(text: str, act: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(description=text, layout=widgets.Layout(width="auto"))
    button.on_click(lambda _: act())
    return button


def _ratings(lang: str, act: Callable[[int], None]) -> widgets.HBox:
    """One button a rating. `act` gets its number."""
    return widgets.HBox(
        [
            _button(f"{number} {name}", lambda number=number: act(number))
            for number, name in zip(RATINGS.values(), WORDS[lang]["ratings"], strict=True)
        ]
    )


def _markdown(text: str) -> widgets.HTMLMath:
    return widgets.HTMLMath(anki_html(text))


class DrillPanel:
    """The drill as a widget, `box`."""

    def __init__(self, deck: Drill, lang: str, new: int):
        self._deck, self._lang, self._new, self._rated = deck, lang, new, 0
        self.box = widgets.VBox()
        self._next("")

    def _next(self, said: str) -> None:
        card, words = self._deck.following(self._new), WORDS[self._lang]
        if card is None:
            due = when(self._deck.next_due(), self._deck.now(), self._lang)
            told = [words["done"].format(count=self._rated), words["nothing"].format(when=due)]
            self.box.children = [widgets.HTML(" ".join(told))]
            return
        show = _button(words["show"], lambda: self._show(card))
        self.box.children = [widgets.HTML(said), *self._front(card), show]

    def _front(self, card: Card) -> Sequence[widgets.Widget]:
        return widgets.HTML(f"<b>{heading(card, self._lang)}</b>"), _markdown(card.front[self._lang])

    def _show(self, card: Card) -> None:
        back = "\n\n".join(filter(None, [card.back[self._lang], links(card, self._lang)]))
        buttons = _ratings(self._lang, lambda rating: self._rate(card, rating))
        self.box.children = [*self._front(card), widgets.HTML("<hr>"), _markdown(back), buttons]

    def _rate(self, card: Card, rating: int) -> None:
        self._new -= card.id not in self._deck.known()
        due = self._deck.rate(card.id, rating)
        self._rated += 1
        self._next(WORDS[self._lang]["next"].format(when=when(due, self._deck.now(), self._lang)))


class InterviewPanel:
    """The mock interview as a widget, `box`, from where it stands."""

    def __init__(self, running: Interview):
        self._interview, self._words, self._bank = running, WORDS[running.lang], the_bank()
        self._kept, self._left, self._clock = Interviews(), widgets.HTML(), None
        self.box = widgets.VBox()
        if running.stage == 0:
            self._put_cell(Path(running.file))
        self._show()

    def _put_cell(self, file: Path) -> None:
        shell = kernel_shell()
        if shell is not None and file.is_file():
            shell.set_next_input(file.read_text(encoding="utf-8"), replace=False)

    def _show(self) -> None:
        """What belongs to the stage, with the clock not yet started."""
        if self._interview.over:
            return self._finish()
        code = self._interview.stage == 0
        lang, words = self._interview.lang, self._words
        if code:
            title = words["drawn"].format(seed=self._interview.seed, why=self._interview.why)
            text = _markdown(f"{title}\n\n{words['write']}\n\n`{self._interview.file}`")
        else:
            text = _markdown(f"**{self._interview.question}** · {self._bank.questions[self._interview.question][lang]}")
        act = self._check if code else self._points
        go_on = _button(words["done button"] if code else words["show"], act)
        if code:
            begin = _button(words["begin"], lambda: self._start([text, go_on], act))
            self.box.children = [text, begin]
            return None
        return self._start([text, go_on], act)

    def _start(self, shown: list[widgets.Widget], over: Callable[[], None]) -> None:
        self._clock = clock = Clock(self._interview, lambda: self._kept.keep(self._interview))
        self._tell(clock)
        self.box.children = [self._left, *shown]

        async def tick() -> None:
            while self._clock is clock and self._tell(clock):
                await asyncio.sleep(1)
            if self._clock is clock:
                over()

        try:
            self._ticking = asyncio.get_running_loop().create_task(tick())
        except RuntimeError:
            self._ticking = None  # no kernel, so nobody looks at the clock

    def _tell(self, clock: Clock) -> bool:
        """Show the time that is left. False once there is none."""
        left = clock.left()
        told = self._words["left"].format(time=clock_text(left)) if left > 0 else self._words["time over"]
        self._left.value = told
        return left > 0

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.left()
        self._clock = None

    def _check(self) -> None:
        from autograde.practice.checking import check_file

        self._stop()
        self.box.children = [widgets.HTML(self._words["checking"])]
        name, shell = self._interview.task, kernel_shell()
        written = shell.user_ns.get(name) if shell is not None else None
        if callable(written):
            from autograde.practice.judge import examined

            result = examined(name, written)
        else:
            result = check_file(Path(self._interview.file), name)
        self._interview.checked(result)
        self._kept.keep(self._interview)
        self.box.children = [widgets.HTML(result["html"]), _button(self._words["go on"], self._show)]

    def _points(self) -> None:
        self._stop()
        interview = self._interview
        points = rubric(self._bank.questions[interview.question], interview.lang)
        boxes = [widgets.Checkbox(indent=False, layout=widgets.Layout(width="2em")) for _ in points]
        rows = [
            widgets.HBox([box, _markdown(f"*{self._words[point.kind]}* · {point.text}")])
            for box, point in zip(boxes, points, strict=True)
        ]
        told = widgets.HTML(self._words["points"])

        def rated(rating: int) -> None:
            drill_on(interview.question).rate(interview.question, rating)
            interview.answered(points, {n for n, box in enumerate(boxes, start=1) if box.value}, rating)
            self._kept.keep(interview)
            self._show()

        self.box.children = [told, *rows, widgets.HTML(self._words["rate"]), _ratings(interview.lang, rated)]

    def _finish(self) -> None:
        file, _ = save_page(self._interview)
        self._kept.finish(self._interview)
        page = as_html(self._interview, sections(self._interview, self._bank), whole=False)
        self.box.children = [widgets.HTML(page), widgets.HTML(self._words["saved"].format(file=file))]
