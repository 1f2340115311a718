"""A03.5: in practice an agent sends each of its tasks through retrieval. Questions about PyTorch's documentation and
sums, in turn: retrieve for every task, retrieve where the model asks for it, or never. What is solved, at what cost?
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence

from experiments.hunting import assistant, model, user
from labkit import minilm
from labkit.corpus import embedded_docstrings, questions
from labkit.experiment import Experiment

TASKS = 12
LETTERS = 60  # of each passage
SHOWN = (
    ("How do I put the entries of a tensor in order?", "torch.sort", "Sorts the elements of the input tensor."),
    ("What is 12 plus 7?", "19", ""),
    ("Which loss do I take to predict a price?", "torch.nn.MSELoss", "Measures the mean squared error."),
    ("What is 30 plus 45?", "75", ""),
    ("I want to turn a matrix on its side.", "torch.transpose", "Returns a tensor with two dimensions swapped."),
)
OTHER = "[1] torch.addmv: Performs a matrix-vector product."  # what retrieval finds for a sum
_QUERY = re.compile(r'Action: (\w+)\nAction Input: \{"query": "([^"]*)"')

experiment = Experiment(
    claim="A03.5",
    question="Does retrieval for every task solve more than retrieval where the model asks for it?",
    arms={"always": {"way": "always"}, "when asked for": {"way": "asked"}, "never": {"way": "never"}},
    seeds=range(3),
    shows="when asked for",
    shows_not="never",
    live=("never", 0),
    within={"solved": 25.0, "sums": 50.0, "questions": 34.0, "tokens": 200.0, "asked": 1.0, "searches": 1.0},
)


@functools.cache
def _corpus():
    passages, vectors = embedded_docstrings()
    return passages, vectors, minilm()


def found(query: str) -> str:
    """The best passage for a query, as the model reads it."""
    passages, vectors, encode = _corpus()
    best = passages[int((vectors @ encode([query])[0]).argmax())]
    return f"[1] {best.name}: {' '.join(best.text.split())[:LETTERS]}…"


def summed(query: str) -> str:
    """A calculator that adds what it finds in a text."""
    numbers = [int(number) for number in re.findall(r"\d+", query)]
    return str(sum(numbers)) if numbers else "error: no numbers"


def act(tool: str, query: str) -> str:
    return f'Action: {tool}\nAction Input: {{"query": "{query}"}}'


def shown(way: str) -> list[dict[str, str]]:
    """Worked examples: the same five tasks for all arms, solved in the arm's own way."""
    told = [{"role": "system", "content": "Use what you are given, then answer."}]
    for question, answer, passage in SHOWN:
        told.append(user(f"Question: {question}"))
        if way == "always" or way == "asked" and passage:
            given = f"[1] {answer}: {passage}" if passage else OTHER
            told += [assistant(act("search_docs", question)), user(f"Observation: {given}")]
        if not passage:
            told += [assistant(act("calculate", question)), user(f"Observation: {answer}")]
        told.append(assistant(f"Final Answer: {answer}"))
    return told


def drawn(seed: int) -> list[tuple[str, tuple[str, ...]]]:
    """Questions with their right answers, and sums with theirs, in turn."""
    draw = random.Random(seed)
    some = []
    for question in draw.sample(questions(), TASKS // 2):
        a, b = draw.randint(10, 89), draw.randint(10, 89)
        some += [(question.text, question.answers), (f"What is {a} plus {b}?", (str(a + b),))]
    return some


def is_right(answer: str | None, wanted: Sequence[str]) -> bool:
    """Whether the answer's first word is one of those wanted; a signature behind a name doesn't matter."""
    words = re.findall(r"[\w.]+", answer or "")
    return bool(words) and words[0].rstrip(".") in wanted


@experiment.measure
def measure(seed: int, way: str) -> dict:
    some, examples = drawn(seed), shown(way)
    chats, answers = [], [None] * len(some)
    asked, searches, tokens = 0, [0] * len(some), 0
    for i, (question, _) in enumerate(some):
        chats.append([*examples, user(f"Question: {question}")])
        if way == "always":  # the program searches, whatever the question is
            searches[i] += 1
            chats[i] += [assistant(act("search_docs", question)), user(f"Observation: {found(question)}")]
    for _ in range(3):
        live = [i for i, answer in enumerate(answers) if answer is None]
        if not live:
            break
        replies = model().many([chats[i] for i in live], max_new_tokens=40, stop=["\nObservation:"])
        for i, reply in zip(live, replies, strict=True):
            asked += 1
            tokens += reply.prompt_tokens + reply.completion_tokens
            text = reply.text.strip()
            if "Final Answer:" in text:
                answers[i] = text.partition("Final Answer:")[2].strip()
                continue
            call = _QUERY.search(text)
            searches[i] += bool(call) and call[1] == "search_docs"
            tools = {"search_docs": found, "calculate": summed}
            sight = tools[call[1]](call[2]) if call and call[1] in tools else "error: no action"
            chats[i] += [assistant(text), user(f"Observation: {sight}")]
    right = [is_right(answer, wanted) for answer, (_, wanted) in zip(answers, some, strict=True)]
    n = len(some)
    return {
        "solved": 100 * sum(right) / n,
        "questions": 100 * sum(right[::2]) / (n // 2),
        "sums": 100 * sum(right[1::2]) / (n // 2),
        "asked": asked / n,
        "searches": sum(searches) / n,
        "tokens": tokens / n,
    }


@experiment.conclude
def conclude(found) -> dict:
    gap = found.interval("always", "solved", minus="when asked for")
    word = "correct" if gap.above(0) else "wrong" if gap.below(0) else "unverifiable"
    numbers = {"gap": gap.text("+.0f")}
    for arm in found.arms:
        for what, form in (
            ("solved", ".0f"),
            ("questions", ".0f"),
            ("sums", ".0f"),
            ("tokens", ".0f"),
            ("asked", ".1f"),
        ):
            numbers[f"{arm.replace(' ', '_')}_{what}"] = f"{found.interval(arm, what).mean:{form}}"
        numbers[f"{arm.replace(' ', '_')}_searches"] = f"{found.interval(arm, 'searches').mean:.2f}"
    return {
        "verdict": word,
        "controls": {
            "shows": found.interval(experiment.shows, "sums").above(50),
            "shows_not": found.interval(experiment.shows_not, "questions").below(20),
        },
        "numbers": numbers,
    }
