"""A10.5: a real model learns to read plays. What does it forget of prose, and what does old text in the batch keep?"""

from __future__ import annotations

import copy
import functools
import importlib.resources
import re

import torch
import torch.nn.functional as F

from labkit import shakespeare, smollm
from labkit.experiment import Experiment, interval

STEPS, ROWS, LENGTH, RATE = 8, 6, 32, 3e-4
TESTED = 16  # passages of each kind
KEPT, LEARNED = 0.5, 0.5  # shares, stated before the run: of what was forgotten, and of what was learned

BEFORE, PLAIN, REPLAY = "before", "plays alone", "half plays, half prose"
FEWER, UPPER, MEAN = "half the plays, no prose", "plays, upper half of the layers", "mean of before and after"

experiment = Experiment(
    claim="A10.5",
    question="A real model is fine-tuned on plays: what does it forget, and what do old texts in the batch keep?",
    arms={
        BEFORE: {"steps": 0},
        PLAIN: {},
        MEAN: {"share": 0.5},
        REPLAY: {"old": ROWS // 2},
        FEWER: {"rows": ROWS // 2},
        UPPER: {"frozen": 15},
    },
    seeds=range(3),
    shows=PLAIN,
    shows_not=FEWER,
    live=(BEFORE, 0),
    within={"prose": 0.05, "plays": 0.05},
)


@functools.cache
def texts() -> dict[str, list[list[int]]]:
    """Passages as token ids: prose from scikit-learn's pages on its data sets, of the one half to train on and of the
    other to be tested on, and plays; lines of the tables are left out."""
    _, tokenizer = smollm()

    def cut(text):
        ids = tokenizer(text).input_ids
        return [ids[at : at + LENGTH] for at in range(0, len(ids) - LENGTH + 1, LENGTH)]

    files = sorted(importlib.resources.files("sklearn.datasets.descr").iterdir(), key=lambda file: file.name)
    pages = [file.read_text(encoding="utf-8").splitlines() for file in files if file.name.endswith(".rst")]
    prose = [" ".join(line.strip() for line in page if re.search(r"[a-z]+ [a-z]+ [a-z]+", line)) for page in pages]
    plays = shakespeare()
    return {
        "prose, train": [passage for page in prose[::2] for passage in cut(page)],
        "prose, test": [passage for page in prose[1::2] for passage in cut(page)],
        "plays, train": cut(plays[1_000_000:1_100_000]),
        "plays, test": cut(plays[4_800_000:4_900_000]),
    }


def draw(kind: str, count: int, dice: torch.Generator) -> torch.Tensor:
    """Different passages of a kind: int64 [count, LENGTH]."""
    some = texts()[kind]
    chosen = torch.randperm(len(some), generator=dice)[:count].tolist()
    return torch.tensor([some[i] for i in chosen], dtype=torch.int64).reshape(len(chosen), LENGTH)


def nats(model, ids: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood a token."""
    return F.cross_entropy(model(ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@functools.lru_cache(maxsize=1)
def trained(seed: int, rows: int, old: int, frozen: int):
    """A copy of the model after STEPS steps of AdamW: of each batch of `rows`, `old` are prose, the others plays."""
    model = copy.deepcopy(smollm()[0])
    fixed = [model.model.embed_tokens, *model.model.layers[:frozen]] if frozen else []
    for part in fixed:
        part.requires_grad_(False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=0.0)
    dice = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 2)
        batch = torch.cat([draw("plays, train", rows - old, dice), draw("prose, train", old, dice)])
        optimizer.zero_grad()
        nats(model, batch).backward()
        optimizer.step()
    return model.requires_grad_(False)


@experiment.measure
def measure(seed, steps=STEPS, rows=ROWS, old=0, frozen=0, share=1.0):
    """Nats a token of test passages, which each seed draws anew. `share` of the way from the model before to after."""
    model = before = smollm()[0]
    if steps:
        model = trained(seed, rows, old, frozen)
    if share < 1:
        model = copy.deepcopy(model)
        for weight, start in zip(model.parameters(), before.parameters(), strict=True):
            weight.lerp_(start, 1 - share)
    dice = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        return {kind: nats(model, draw(f"{kind}, test", TESTED, dice)).item() for kind in ("prose", "plays")}


def forgotten(found, arm):
    """Nats a token of prose that an arm has lost, seed by seed."""
    return [after - before for after, before in zip(found.each(arm, "prose"), found.each(BEFORE, "prose"), strict=True)]


def learned(found, arm):
    """Nats a token of plays that an arm has gained, seed by seed."""
    return [before - after for after, before in zip(found.each(arm, "plays"), found.each(BEFORE, "plays"), strict=True)]


def shares(found, arm):
    """What an arm keeps of what PLAIN forgets, and what it learns of what PLAIN learns, as intervals over the seeds."""
    kept = [1 - a / b for a, b in zip(forgotten(found, arm), forgotten(found, PLAIN), strict=True)]
    gained = [a / b for a, b in zip(learned(found, arm), learned(found, PLAIN), strict=True)]
    return interval(kept), interval(gained)


@experiment.conclude
def conclude(found):
    """Correct if REPLAY surely keeps over KEPT and surely learns over LEARNED; imprecise if it surely keeps something;
    wrong if it surely keeps nothing; else unverifiable."""
    kept, gained = shares(found, REPLAY)
    if kept.above(KEPT) and gained.above(LEARNED):
        word = "correct"
    elif kept.above(0):
        word = "imprecise"
    else:
        word = "wrong" if kept.below(0) else "unverifiable"
    numbers = {}
    for name, arm in {"plain": PLAIN, "replay": REPLAY, "fewer": FEWER, "upper": UPPER, "mean": MEAN}.items():
        each = interval(forgotten(found, arm)), interval(learned(found, arm))
        means = zip(("forgot", "learned"), each, strict=True)
        numbers |= {f"{name}_{what}": f"{of.mean:+.2f}".replace("-", "−") for what, of in means}
        both = zip(("kept", "share"), shares(found, arm), strict=True)
        numbers |= {f"{name}_{what}": f"{100 * of.low:.0f} to {100 * of.high:.0f} %" for what, of in both}
    return {
        "verdict": word,
        "controls": {
            "shows": interval(forgotten(found, PLAIN)).above(0),
            "shows_not": not shares(found, FEWER)[0].above(KEPT),
        },
        "numbers": numbers,
    }
