"""What has been solved so far, in files on this machine (`labkit.store`). Nothing leaves it.

`progress.json` has the best result of every exercise, `attempts.json` how often one was tried in earnest, and whether
its solution was looked at. On a disk that can't be written, both live as long as the kernel. It needs no torch.
"""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from labkit.display import show_html
from labkit.store import Store, is_off


@dataclass(frozen=True)
class Attempts:
    """What is known of the way to one exercise's solution.

    tried:    checks that ran a solution, not the stub, and found it wrong
    revealed: whether the solution was shown before the exercise was solved
    anyway:   whether that was before any honest try
    """

    tried: int = 0
    revealed: bool = False
    anyway: bool = False


def _attempts(entry: dict) -> dict:
    """An entry of the file, as plain values; what an older or newer version of the course wrote is left out."""
    return asdict(Attempts(int(entry["tried"]), bool(entry.get("revealed")), bool(entry.get("anyway"))))


def _result(entry: list) -> list[float]:
    earned, points = entry
    return [float(earned), float(points)]


_results, _ways = Store("progress", _result), Store("attempts", _attempts)
_memory: dict[str, list[float]] = {}
_tried: dict[str, Attempts] = {}


def record(name: str, earned: float, points: float) -> None:
    """Keep a result of exercise `name`, if it is the best so far. Never raises."""
    if is_off():
        return
    _memory[name] = _better(_memory.get(name), [float(earned), float(points)])
    _results.change(lambda results: results.update({name: _better(results.get(name), _memory[name])}))


def best(name: str) -> tuple[float, float] | None:
    """The best result of exercise `name` as (earned, points), or None where there is none yet."""
    return results().get(name)


def results() -> dict[str, tuple[float, float]]:
    """The best result of every exercise that has one, as (earned, points) by its name."""
    if is_off():
        return {}
    found = dict(_memory)
    with contextlib.suppress(OSError):
        for name, result in _results.read().items():
            found[name] = _better(found.get(name), result)
    return {name: (earned, points) for name, (earned, points) in sorted(found.items())}


def is_solved(name: str) -> bool:
    """Whether exercise `name` has all its points."""
    found = best(name)
    return found is not None and found[0] >= found[1]


def record_attempt(name: str) -> None:
    """Note that a solution of exercise `name` was run by a check and found wrong. Never raises."""
    _note(name, lambda known: replace(known, tried=known.tried + 1))


def record_reveal(name: str) -> None:
    """Note that the solution of exercise `name` was shown. Once it is solved, looking is free. Never raises."""
    if not is_solved(name):
        _note(name, lambda known: known if known.revealed else replace(known, revealed=True, anyway=not known.tried))


def attempts(name: str) -> Attempts:
    """What is known of the way to the solution of exercise `name`."""
    return all_attempts().get(name, Attempts())


def all_attempts() -> dict[str, Attempts]:
    """What is known of the way to every exercise that was tried or revealed, by its name."""
    found = dict(_tried)
    with contextlib.suppress(OSError):
        for name, entry in _ways.read().items():
            found[name] = _joined(found.get(name, Attempts()), Attempts(**entry))
    return found


def _note(name: str, changed: Callable[[Attempts], Attempts]) -> None:
    before = _tried.get(name, Attempts())
    _tried[name] = changed(before)  # as far as this kernel knows

    def change(entries: dict[str, dict]) -> None:
        _tried[name] = changed(_joined(before, Attempts(**entries.get(name, {}))))
        entries[name] = asdict(_tried[name])

    _ways.change(change)


def _joined(one: Attempts, other: Attempts) -> Attempts:
    """What two kernels know of the same exercise."""
    return Attempts(max(one.tried, other.tried), one.revealed or other.revealed, one.anyway or other.anyway)


def show() -> None:
    """Show every exercise tried so far with its best result: a table in a notebook, text elsewhere."""
    found = results()
    looked = {name for name, known in all_attempts().items() if known.revealed}
    rows = [(name, f"{earned:g}", f"{points:g}", _state(name, looked)) for name, (earned, points) in found.items()]
    total = [sum(each) for each in zip(*found.values(), strict=True)]
    if not rows:
        text = "No exercise solved yet: run a check(...) cell first."
        return None if show_html(f"<p>{text}</p>", text) else print(text)
    wide = max(len(name) for name in found)
    lines = [
        f"{'✓' if state.startswith('solved') else ' '} {name:{wide}}  {earned:>5} / {points}"
        + "  revealed" * (name in looked)
        for name, earned, points, state in rows
    ]
    text = "\n".join([*lines, f"  {'all':{wide}}  {total[0]:>5g} / {total[1]:g}"])
    return None if show_html(_table(rows, total), text) else print(text)


def _state(name: str, looked: set[str]) -> str:
    return ("solved" if is_solved(name) else "open") + ", revealed" * (name in looked)


def _table(rows, total) -> str:
    cell = '<td style="text-align:right">{} of {}</td>'
    body = "".join(
        f'<tr><td style="text-align:left">{html.escape(name)}</td>{cell.format(earned, points)}<td>{state}</td></tr>'
        for name, earned, points, state in rows
    )
    foot = f'<tr><th style="text-align:left">all</th>{cell.format(f"{total[0]:g}", f"{total[1]:g}")}<td></td></tr>'
    head = '<tr><th style="text-align:left">exercise</th><th>points</th><th>state</th></tr>'
    return f"<table><caption>Best results so far</caption><thead>{head}</thead><tbody>{body}{foot}</tbody></table>"


def _better(old: list[float] | None, new: list[float]) -> list[float]:
    """The result with the larger share of its points. On a tie the new one: the exercise may be worth more by now."""

    def share(result: list[float]) -> float:
        return result[0] / result[1] if result[1] else 0.0

    return old if old and share(old) > share(new) else new
