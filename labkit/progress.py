"""What has been solved so far, in one file on this machine. Nothing leaves it.

The file is `progress.json` in the user's data folder, or in LABKIT_HOME. It is replaced whole and under a lock, so a
crash or two notebooks at once lose nothing; a damaged one is set aside. On a disk that can't be written, results live
as long as the kernel. LABKIT_NO_PROGRESS=1 turns all of it off. It needs no torch.
"""

from __future__ import annotations

import contextlib
import html

from labkit import keeping
from labkit.display import show_html

_memory: dict[str, list[float]] = {}


def record(name: str, earned: float, points: float) -> None:
    """Keep a result of exercise `name`, if it is the best so far. Never raises."""
    if keeping.is_off():
        return
    _memory[name] = _better(_memory.get(name), [float(earned), float(points)])
    with contextlib.suppress(OSError):
        keeping.folder().mkdir(parents=True, exist_ok=True)
        with keeping.locked("progress"):
            results = _read()
            before = results.get(name)
            results[name] = _better(before, _memory[name])
            if results[name] != before:
                keeping.write("progress", results)


def best(name: str) -> tuple[float, float] | None:
    """The best result of exercise `name` as (earned, points), or None where there is none yet."""
    found = _all().get(name)
    return (found[0], found[1]) if found else None


def results() -> dict[str, tuple[float, float]]:
    """The best result of every exercise tried so far, (earned, points) by its name."""
    return {name: (earned, points) for name, (earned, points) in _all().items()}


def show() -> None:
    """Show every exercise tried so far with its best result: a table in a notebook, text elsewhere."""
    results = _all()
    rows = [(name, f"{earned:g}", f"{points:g}", earned >= points) for name, (earned, points) in results.items()]
    total = [sum(r[0] for r in results.values()), sum(r[1] for r in results.values())]
    if not rows:
        text = "No exercise solved yet: run a check(...) cell first."
        return None if show_html(f"<p>{text}</p>", text) else print(text)
    wide = max(len(name) for name, *_ in rows)
    lines = [f"{'✓' if done else ' '} {name:{wide}}  {earned:>5} / {points}" for name, earned, points, done in rows]
    text = "\n".join([*lines, f"  {'all':{wide}}  {total[0]:>5g} / {total[1]:g}"])
    return None if show_html(_table(rows, total), text) else print(text)


def _table(rows, total) -> str:
    cell = '<td style="text-align:right">{} of {}</td>'
    body = "".join(
        f'<tr><td style="text-align:left">{html.escape(name)}</td>{cell.format(earned, points)}'
        f"<td>{'solved' if done else 'open'}</td></tr>"
        for name, earned, points, done in rows
    )
    foot = f'<tr><th style="text-align:left">all</th>{cell.format(f"{total[0]:g}", f"{total[1]:g}")}<td></td></tr>'
    head = '<tr><th style="text-align:left">exercise</th><th>points</th><th>state</th></tr>'
    return f"<table><caption>Best results so far</caption><thead>{head}</thead><tbody>{body}{foot}</tbody></table>"


def _better(old: list[float] | None, new: list[float]) -> list[float]:
    """The result with the larger share of its points. On a tie the new one: the exercise may be worth more by now."""

    def share(result: list[float]) -> float:
        return result[0] / result[1] if result[1] else 0.0

    return old if old and share(old) > share(new) else new


def _all() -> dict[str, list[float]]:
    if keeping.is_off():
        return {}
    results = dict(_memory)
    with contextlib.suppress(OSError):
        for name, result in _read().items():
            results[name] = _better(results.get(name), result)
    return dict(sorted(results.items()))


def _read() -> dict[str, list[float]]:
    """What the file holds."""
    return keeping.read("progress", _results) or {}


def _results(stored: dict) -> dict[str, list[float]]:
    return {str(name): [float(earned), float(points)] for name, (earned, points) in stored.items()}
