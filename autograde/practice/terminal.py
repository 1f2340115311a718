"""Talking at a terminal: cards as text, one key at a time, a clock that runs while it waits; and the same by a pipe."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import NoReturn, TextIO

from autograde.practice.markup import without_formulas

__all__ = ["Parser", "Terminal", "run"]

ENTER, END = "\n", "q"
_WIDEST = 100  # columns: longer lines are hard to read
_TICK = 0.25  # seconds between two looks at the clock


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the options in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. What it takes: python course.py help.\n")


def run(main: Callable[[], int], name: str) -> int:
    """Call `main`, and give its exit status; what goes wrong in an expected way is told in one sentence."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")
    try:
        return main()
    except ModuleNotFoundError as error:
        told = f"this needs the package {error.name}: pip install -r requirements.txt"
    except ValueError as error:
        told = str(error)
    except OSError as error:
        from autograde.files import in_words

        told = in_words(error)
    print(f"{name}: {told}", file=sys.stderr)
    return 1


class Terminal:
    """Where text goes and keys come from.

    A key counts when it is pressed; where the input is a file or a pipe, each line is one key and its end is `q`.
    """

    def __init__(self, source: TextIO | None = None, target: TextIO | None = None):
        from rich.console import Console

        self._source, self._target = source or sys.stdin, target or sys.stdout
        self._screen = Console(file=self._target, highlight=False, soft_wrap=False)
        self._console = Console(file=self._target, highlight=False, width=min(self._screen.width, _WIDEST))
        self._pressed = bool(self._source and self._source.isatty() and self._target.isatty())
        self._read = b""

    def say(self, text: str = "") -> None:
        """A line as it is."""
        self._target.write(text + "\n")
        self._target.flush()

    def show(self, text: str) -> None:
        """Markdown, with its formulas as plain text."""
        from rich.markdown import Markdown

        self._console.print(Markdown(without_formulas(text)))
        self._target.flush()

    def rule(self, title: str) -> None:
        self._console.rule(title, align="left", characters="─" if _can_print("─", self._target) else "-")

    def line(self, prompt: str) -> str:
        """A line of text; empty at the end of the input."""
        self._prompt(prompt)
        if self._pressed:
            return self._source.readline().strip()
        return (self._piped(None) or "").strip()

    def key(self, prompt: str, allowed: Collection[str], clock: Callable[[], str | None] | None = None) -> str:
        """Wait for one of the keys `allowed` (Enter is a newline), and give it; other keys do nothing.

        clock: gives what stands in front of the prompt, again and again, and None once the time is up: then the
               answer is an empty text.
        """
        told = f"{clock() or ''}{prompt}" if clock else prompt
        self._prompt(_cut(told, self._screen.width - 2) if clock and self._pressed else told)
        with self._keys() as next_key:
            while True:
                if clock and (before := clock()) is None:
                    self.say()
                    return ""
                if clock and self._pressed and f"{before}{prompt}" != told:
                    told = f"{before}{prompt}"
                    self._prompt(f"\r\x1b[K{_cut(told, self._screen.width - 2)}")
                key = next_key(_TICK if clock else None)
                if key in allowed:
                    self.say(key.strip() if self._pressed else "")
                    return key

    def _prompt(self, text: str) -> None:
        self._target.write(f"{text} ")
        self._target.flush()

    @contextlib.contextmanager
    def _keys(self) -> Iterator[Callable[[float | None], str | None]]:
        """A function that waits some seconds (None: for ever) for a key."""
        if not self._pressed:
            yield self._line_as_key
        elif os.name == "nt":
            yield _windows_key
        else:
            import termios
            import tty

            number = self._source.fileno()
            before = termios.tcgetattr(number)
            try:
                tty.setcbreak(number)
                yield lambda seconds: self._posix_key(number, seconds)
            finally:
                termios.tcsetattr(number, termios.TCSADRAIN, before)

    def _posix_key(self, number: int, seconds: float | None) -> str | None:
        if not select.select([number], [], [], seconds)[0]:
            return None
        read = os.read(number, 1)
        if read in (b"", b"\x04"):
            return END
        return ENTER if read in (b"\r", b"\n") else read.decode("ascii", "replace").lower()

    def _line_as_key(self, seconds: float | None) -> str | None:
        line = self._piped(seconds)
        if line is None:
            return None
        return END if not line else line.strip().lower()[:1] or ENTER

    def _piped(self, seconds: float | None) -> str | None:
        """The next line, empty at the end of the input; None where none came within some seconds."""
        try:
            number = self._source.fileno()
        except (AttributeError, OSError, ValueError):
            return self._source.readline() if self._source else ""
        while b"\n" not in self._read:
            if seconds is not None and os.name != "nt" and not select.select([number], [], [], seconds)[0]:
                return None
            more = os.read(number, 4096)
            if not more:
                line, self._read = self._read, b""
                return line.decode("utf-8", "replace")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.decode("utf-8", "replace") + "\n"


def _cut(text: str, width: int) -> str:
    """The text in so many columns at most, so that a line can be written over: a Chinese sign takes two."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width)


def _windows_key(seconds: float | None) -> str | None:
    import msvcrt

    end = None if seconds is None else time.monotonic() + seconds
    while not msvcrt.kbhit():
        if end is not None and time.monotonic() > end:
            return None
        time.sleep(0.05)
    key = msvcrt.getwch()
    if key == "\x03":
        raise KeyboardInterrupt
    return ENTER if key in "\r\n" else END if key == "\x1a" else key.lower()


def _can_print(text: str, target: TextIO) -> bool:
    try:
        text.encode(getattr(target, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
