"""A04.9: what do ways of searching cost in time, and what do they find?"""

from __future__ import annotations

import functools
import time

import torch

from experiments.retrieving import some, texts, write
from labkit import embedded_docstrings, minilm, smollm
from labkit.experiment import Experiment

COUNT, FEW, TOP = 16, 5, 6  # questions a seed, with reading again; passages that are read again
SHARE = 0.05  # of the time of an answer: a search that takes surely less is not what one waits for. Stated before.

experiment = Experiment(
    claim="A04.9",
    question="How much of the time of an answer is the search, and what does more time find?",
    arms={
        "whole passages": {},
        "read again by the chat model": {"again": True},
        "at random": {"blind": True},
    },
    seeds=range(8),
    shows="whole passages",
    shows_not="at random",
    live=("whole passages", 0),
    within={"first": 0.13, "first before": 0.13, "five": 0.13, "share": 0.5, "search": 1.0, "passages": 0.0},
)


@experiment.measure
def measure(seed, again=False, blind=False):
    """Shares of questions answered by the first and by one of the first five; the search's share of the time."""
    questions = some(seed, COUNT)[: FEW if again else COUNT]
    passages, vectors = embedded_docstrings()
    minilm()(["warm"])  # loading is no part of a search
    answer = _answer(seed)
    start = time.process_time()
    asked = minilm()([question.text for question in questions])
    scores = asked @ vectors.T
    if blind:
        scores = torch.rand(scores.shape)
    ranked = [[passages[i].name for i in row] for row in scores.topk(10).indices.tolist()]
    before = [row[0] in question.answers for question, row in zip(questions, ranked, strict=True)]
    if again:
        pairs = zip(questions, ranked, strict=True)
        ranked = [_read_again(question.text, row[:TOP]) + row[TOP:] for question, row in pairs]
    search = time.process_time() - start
    hits = [[name in question.answers for name in row] for question, row in zip(questions, ranked, strict=True)]
    return {
        "five": sum(any(row[:5]) for row in hits) / len(hits),
        "first": sum(row[0] for row in hits) / len(hits),
        "first before": sum(before) / len(hits),
        "share": search / len(hits) / (search / len(hits) + answer),
        "search": search / len(hits),
        "passages": len(passages),
    }


@functools.cache
def _answer(seed):
    """Seconds that the chat model takes for an answer from one page, one question at a time."""
    start = time.process_time()
    for question in some(seed, 2):
        write([f"{question.answers[0]}: {texts()[question.answers[0]]}\nQuestion: {question.text}"])
    return (time.process_time() - start) / 2


@torch.inference_mode()
def _read_again(question, names):
    """The names, ordered by how likely the chat model finds the question after each passage (Sachan et al. 2022)."""
    model, tokenizer = smollm()
    heads = [f"Passage: {name}: {' '.join(texts()[name].split()[:28])}\nA question that it answers:" for name in names]
    given = tokenizer([f"{head} {question}" for head in heads], return_tensors="pt", padding=True, padding_side="left")
    length = len(tokenizer(f" {question}").input_ids)
    odds = model(**given, logits_to_keep=length + 1).logits[:, :-1].log_softmax(-1)
    likely = odds.gather(-1, given.input_ids[:, -length:, None]).sum((1, 2))
    return [names[i] for i in likely.argsort(descending=True).tolist()]


@experiment.conclude
def conclude(found):
    """Correct if a plain search surely is more than half of the time of an answer, wrong if surely under SHARE."""
    share = found.interval("whole passages", "share")
    word = "correct" if share.above(0.5) else "imprecise" if not share.below(SHARE) else "wrong"
    again = found.interval("read again by the chat model", "share")
    word = "imprecise" if word == "wrong" and again.above(0.5) else word
    gain = found.interval("whole passages", "five", minus="at random")
    return {
        "verdict": word,
        "controls": {
            "shows": gain.mean > 0.1,
            "shows_not": not found.interval("at random", "five").above(0.1),
        },
        "numbers": {
            "share": f"{100 * share.mean:.1f} %",
            "again": f"{100 * again.mean:.0f} %",
            "milliseconds": f"{1000 * found.interval('whole passages', 'search').mean:.0f}",
            "passages": f"{found.each('whole passages', 'passages')[0]:,}",
            "questions": f"{FEW * len(found.each('read again by the chat model', 'first'))}",
            "again_ms": f"{1000 * found.interval('read again by the chat model', 'search').mean:.0f}",
            "first": f"{100 * found.interval('read again by the chat model', 'first before').mean:.0f} %",
            "first_again": f"{100 * found.interval('read again by the chat model', 'first').mean:.0f} %",
        },
    }
