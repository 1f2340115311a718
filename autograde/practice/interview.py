"""`python course.py interview`: a mock interview at a terminal, by the clock. Mistakes are named when time is up."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from autograde.files import replace
from autograde.practice.checking import check_file
from autograde.practice.deck import LANGUAGES, the_bank
from autograde.practice.draw import QUESTIONS, Drawn, draw
from autograde.practice.drill import drill_on, rating_prompt
from autograde.practice.page import as_html, as_text, sections
from autograde.practice.rubric import rubric
from autograde.practice.session import CODING, Clock, Interview, Interviews, clock_text
from autograde.practice.tasks import DIFFICULTIES, task_file, tasks
from autograde.practice.terminal import END, ENTER, Parser, Terminal, run
from autograde.practice.words import WORDS
from labkit import progress

MINUTES, LONGEST = 45.0, 240.0


class Paused(Exception):
    """The candidate leaves for now."""


def drawn_now(seed: int, topic: str | None, difficulty: str | None) -> Drawn:
    """Draw by what the learner's checks, ratings and earlier interviews say. ValueError where nothing fits."""
    past = Interviews().past()
    return draw(tasks(), the_bank(), drill_on(), progress.results(), past, seed, topic, difficulty)


def begun(drawn: Drawn, seed: int, lang: str, minutes: float, folder: Path, now: datetime) -> Interview:
    """Write the task's file into the folder, which is made, and give the interview, kept from now on."""
    file = folder.absolute() / f"{drawn.task.name}.py"
    replace(file, task_file(drawn.task))
    interview = Interview.of(drawn, seed, lang, minutes, file, now)
    Interviews().keep(interview)
    return interview


def new_folder(now: datetime) -> Path:
    """A folder in the working one that isn't there yet: mock-interview-2026-11-28, or the same with a number."""
    plain = Path(f"mock-interview-{now:%Y-%m-%d}")
    return next(p for n in range(1, 1000) if not (p := plain if n == 1 else Path(f"{plain}-{n}")).exists())


def save_page(interview: Interview) -> tuple[Path, str]:
    """Write review.html and review.md beside the task's file; gives the path of the first, and the short text."""
    found, folder = sections(interview, the_bank()), Path(interview.file).parent
    replace(folder / "review.html", as_html(interview, found))
    replace(folder / "review.md", as_text(interview, found))
    return folder / "review.html", as_text(interview, found, folds=False)


class AtTheTerminal:
    """One interview at a terminal, from where it stands to its end or until the candidate pauses."""

    def __init__(self, terminal: Terminal, interview: Interview):
        self.terminal, self.interview = terminal, interview
        self._words, self._bank = WORDS[interview.lang], the_bank()
        self._kept = Interviews()

    def run(self) -> bool:
        """True where it came to its end."""
        try:
            while not self.interview.over:
                self._code() if self.interview.stage == 0 else self._ask()
                self._keep()
        except (Paused, KeyboardInterrupt):
            self._keep()
            self.terminal.say(f"\n{self._words['paused']}")
            return False
        file, told = save_page(self.interview)
        self._kept.finish(self.interview)
        self.terminal.rule("")
        self.terminal.show(told)
        self.terminal.say("\n" + self._words["saved"].format(file=file))
        return True

    def _keep(self) -> None:
        self._kept.keep(self.interview)

    def _clock(self) -> Callable[[], str | None]:
        clock = Clock(self.interview, self._keep)

        def told() -> str | None:
            left = clock.left()
            return self._words["left"].format(time=clock_text(left)) if left > 0 else None

        return told

    def _key(self, prompt: str, allowed: set[str]) -> str:
        """A key with the clock in front of it; an empty text when the time is over."""
        key = self.terminal.key(prompt, allowed, self._clock())
        if key == END:
            raise Paused
        if not key:
            self.terminal.say(self._words["time over"])
        return key

    def _code(self) -> None:
        self.terminal.say(self.interview.file)
        self._key(self._words["coding"], {"d", END})
        self.terminal.say(self._words["checking"])
        self.interview.checked(check_file(Path(self.interview.file), self.interview.task))
        self.terminal.say(f"\n{self.interview.result['text']}\n")

    def _ask(self) -> None:
        question, lang = self.interview.question, self.interview.lang
        self.terminal.rule(question)
        self.terminal.show(self._bank.questions[question][lang])
        self.terminal.say()
        self._key(self._words["answer"], {ENTER, " ", END})
        points = rubric(self._bank.questions[question], lang)
        for number, point in enumerate(points, start=1):
            if number == 1 or point.kind != points[number - 2].kind:
                self.terminal.show(f"**{self._words[point.kind]}**")
            self.terminal.show(f"{number}. {point.text}")
        self.terminal.say()
        told = self._told(len(points))
        rating = self.terminal.key(rating_prompt(lang), {*"1234", END})
        if rating == END:
            raise Paused
        drill_on(question).rate(question, int(rating))
        self.interview.answered(points, told, int(rating))

    def _told(self, most: int) -> set[int]:
        while True:
            told = self.terminal.line(self._words["your points"]).lower().replace(",", " ").split()
            if told == ["a"]:
                return set(range(1, most + 1))
            if all(one.isdecimal() and 1 <= int(one) <= most for one in told):
                return {int(one) for one in told}
            self.terminal.say(self._words["no such point"].format(most=most))


def _unfinished(terminal: Terminal) -> Interview | None:
    """The interview to go on with, if there is one and the candidate wants to. Raises Paused."""
    interview = Interviews().current()
    if interview is None:
        return None
    began = datetime.fromisoformat(interview.began)
    told = WORDS[interview.lang]["unfinished"].format(began=f"{began:%Y-%m-%d %H:%M}", task=interview.task)
    key = terminal.key(told, {"c", "n", END})
    if key == END:
        raise Paused
    return interview if key == "c" else None


def _options() -> argparse.Namespace:
    parser = Parser(
        "course.py interview", description="A mock interview: a coding task and two questions, with a clock."
    )
    parser.add_argument(
        "--topic", help="a section, a chapter such as rope, a question such as T04; several with commas"
    )
    parser.add_argument("--difficulty", choices=DIFFICULTIES, help="of the coding task (default: any)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"all together (default: {MINUTES:.0f})")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="the language of the questions (default: en)")
    parser.add_argument("--seed", type=int, help="draws the same again, as long as your results are the same")
    parser.add_argument("--folder", type=Path, help="where to write the task (default: ./mock-interview-DATE)")
    options = parser.parse_args()
    if not 0 < options.minutes <= LONGEST:
        parser.error(f"argument --minutes: takes more than 0 and at most {LONGEST:.0f}")
    if options.folder and options.folder.exists() and (not options.folder.is_dir() or any(options.folder.iterdir())):
        parser.error(f"argument --folder: {options.folder} is there already and isn't an empty folder")
    return options


def main() -> int:
    options, terminal = _options(), Terminal()
    try:
        interview = _unfinished(terminal)
        if interview is None:
            seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
            drawn, words = drawn_now(seed, options.topic, options.difficulty), WORDS[options.lang]
            now = datetime.now()
            folder = options.folder or new_folder(now)
            terminal.say(words["drawn"].format(seed=seed, why=drawn.why))
            coding, each = _plan(options.minutes)
            terminal.say(words["plan"].format(coding=coding, each=each, file=folder / f"{drawn.task.name}.py"))
            if terminal.key(words["start"], {ENTER, END}) == END:
                return 0
            interview = begun(drawn, seed, options.lang, options.minutes, folder, now)
    except (Paused, KeyboardInterrupt):
        terminal.say()
        return 0
    AtTheTerminal(terminal, interview).run()
    return 0


def _plan(minutes: float) -> tuple[str, str]:
    return f"{minutes * CODING:.3g}", f"{minutes * (1 - CODING) / QUESTIONS:.3g}"


if __name__ == "__main__":
    sys.exit(run(main, "course.py interview"))
