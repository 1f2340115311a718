"""The drill bank: one page a question, in both languages, and a list of all that can be filtered."""

from __future__ import annotations

from collections.abc import Mapping

from autograde.authoring.bank import Bank
from autograde.authoring.cards import card, table_cell
from website.chapters import chinese_marked

_OPENING = """# The drill: all questions

{count} questions, in English and Chinese. Answer aloud, then open the card: the answer in 30 seconds, the depth behind
it, what is asked next, the trap, and what the usual study notes say, sentence by sentence.

<p class="course-filter"><label for="course-filter">Show only questions with</label>
<input id="course-filter" type="search" placeholder="RoPE, 位置编码 …"></p>
"""


def pages(bank: Bank, chapters: Mapping[str, str], sections: Mapping[str, list[str]]) -> dict[str, str]:
    """Name -> markdown: `index`, and a page for every question that has an answer.

    chapters: question -> links to the chapters that answer it, as markdown. sections: title -> questions, in order.
    """
    made = {}
    full = [entry for entry in bank.entries if bank.is_full(entry["id"])]
    for entry in full:
        links = chapters.get(entry["id"], "")
        head, _, rest = card(entry).partition("\n")
        below = f"**Build it and test it:** {links}\n\n" if links else ""
        verdicts = f"The verdicts, and the runs they come from: [{entry['id']}](#verdicts-{entry['id']})."
        text = f"(card-{entry['id']})=\n{head.replace('### ', '# ', 1)}\n{rest}\n\n{below}{verdicts}\n"
        made[entry["id"]] = chinese_marked(text)
    parts = [_OPENING.format(count=len(full))]
    for title, questions in sections.items():
        rows = [_row(bank.questions[q], chapters.get(q, "")) for q in questions if q in made]
        parts.append("\n".join([f"## {title}\n", "| no. | question | chapters |", "|---|---|---|", *rows]))
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *made, "```"])
    made["index"] = "\n\n".join([*parts, toctree]) + "\n"
    return made


def _row(entry: dict, links: str) -> str:
    both = f'{table_cell(entry["en"])}<br><span lang="zh">{table_cell(entry["zh"])}</span>'
    return f"| [{entry['id']}](#card-{entry['id']}) | {both} | {links} |"
