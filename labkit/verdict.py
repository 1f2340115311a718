"""The verdict on a claim, computed by the cell that ran the experiment."""

from __future__ import annotations

import html

from labkit.display import minus, show_html

__all__ = ["VERDICTS", "verdict"]

VERDICTS = ("correct", "imprecise", "wrong", "outdated", "unverifiable")
_SIGN = "Claim {claim}: {word}."


def verdict(claim: str, word: str, because: str) -> None:
    """Show what came out for a claim of the question bank.

    claim: its id, such as "T06.2". word: one of VERDICTS, chosen by the cell from the numbers it has measured; the
    tests compare it with the bank's. because: one or two sentences with those numbers. Raises ValueError for any other
    word.
    """
    if word not in VERDICTS:
        raise ValueError(f"A verdict is one of {', '.join(VERDICTS)}, not {word!r}.")
    sign, because = _SIGN.format(claim=claim, word=word), minus(because)
    text = f"{sign} {because}"
    if not show_html(f"<p><strong>{html.escape(sign)}</strong> {html.escape(because)}</p>", text):
        print(text)
