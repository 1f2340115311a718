"""A04.2: what do pages in the prompt cost in time, until the first word and until the last?"""

from __future__ import annotations

import copy
import statistics
import time

import torch

from experiments.retrieving import ASK, page, some
from labkit import smollm
from labkit.experiment import Experiment

TWICE = 2.0  # an answer that takes twice as long: from there on the time counts. Stated before the run.
NEW, RUNS = 16, 1  # tokens of an answer; runs, of which the median counts

experiment = Experiment(
    claim="A04.2",
    question="How much longer does an answer take with pages in the prompt?",
    arms={
        "1 page": {"pages": 1},
        "8 pages": {"pages": 8},
        "8 pages, kept": {"pages": 8, "kept": True},
        "no page": {"pages": 0},
    },
    seeds=range(3),
    shows="8 pages",
    shows_not="no page",
    live=("1 page", 0),
    within={"times": 1.0, "first": 3.0, "tokens": 0.0},
)


@experiment.measure
def measure(seed, pages, kept=False):
    """How many times as long as without a page: the whole answer, and up to its first token.

    Both are measured here, in turns. `kept`: the pages' keys and values were computed before and are kept, as a server
    with a prefix cache keeps them; only the question is new.
    """
    questions = some(seed, 9)
    question = ASK.format(questions[0].text)
    sources = "".join(f"[{i}] {page(each.answers[0])}\n" for i, each in enumerate(questions[1 : pages + 1], 1))
    with_pages, without = [], []
    for _ in range(RUNS):
        without.append(_timed("", question, False))
        with_pages.append(_timed(sources, question, kept))
    first, whole = (statistics.median(a[i] / b[i] for a, b in zip(with_pages, without, strict=True)) for i in (0, 1))
    return {"times": whole, "first": first, "tokens": len(smollm()[1](sources).input_ids)}


@torch.inference_mode()
def _timed(sources, question, kept):
    """Processor seconds to the first token, and to the last of NEW."""
    model, tokenizer = smollm()
    before = tokenizer("<|im_start|>user\n" + sources, return_tensors="pt").input_ids
    after = tokenizer(question + "<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt").input_ids
    cache = None
    if kept:
        cache = copy.deepcopy(model(before, use_cache=True, logits_to_keep=1).past_key_values)
    start = time.process_time()
    given = after if kept else torch.cat([before, after], dim=1)
    out = model(given, past_key_values=cache, use_cache=True, logits_to_keep=1)
    first = time.process_time() - start
    for _ in range(NEW - 1):
        token = out.logits[:, -1:].argmax(-1)
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
    return first, time.process_time() - start


@experiment.conclude
def conclude(found):
    """Correct if even one page surely doubles the time of an answer, wrong if eight surely don't, else imprecise."""
    times = {arm: found.interval(arm, "times") for arm in ("1 page", "8 pages", "8 pages, kept")}
    word = "imprecise" if not times["8 pages"].below(TWICE) else "wrong"
    word = "correct" if times["1 page"].above(TWICE) else word
    first = found.interval("8 pages", "first")
    return {
        "verdict": word,
        "controls": {
            "shows": times["8 pages"].above(1.2),
            "shows_not": not found.interval("no page", "times").above(1.2),
        },
        "numbers": {
            "one": f"{times['1 page'].mean:.1f}",
            "eight": f"{times['8 pages'].mean:.1f}",
            "kept": f"{times['8 pages, kept'].mean:.1f}",
            "first": f"{first.mean:.0f}",
            "first_kept": f"{found.interval('8 pages, kept', 'first').mean:.1f}",
            "tokens": f"{found.interval('8 pages', 'tokens').mean:.0f}",
        },
    }
