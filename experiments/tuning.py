"""A small LLaMA of our own that first reads, then converses, and is then tuned: what A04.4 and A13.3 share."""

from __future__ import annotations

import functools
import re

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import shakespeare

LENGTH, ROWS, WIDTH, LAYERS = 64, 16, 64, 2
PRETRAINING, CHATTING = (320, 8e-3), (120, 4e-3)  # steps and rate
LETTERS = 128
USER, ASSISTANT, END, OTHER_USER, OTHER_ASSISTANT, PAD = range(LETTERS, LETTERS + 6)
IGNORED = -100
SPEECH = re.compile(r"^[A-Z][A-Za-z.' ]{1,25}\.\n", re.M)


@functools.cache
def _speeches() -> list[list[str]]:
    """The plays as runs of speeches that follow each other, without names and stage directions."""
    runs, now = [], []
    for block in re.split(r"\n{2,}", shakespeare()):
        name = SPEECH.match(block)
        if name and len(block) > name.end() + 3:
            now.append(re.sub(r"\[.*?\]|\s+", " ", block[name.end() :]).strip())
        elif not block.startswith("[") and now:
            runs.append(now)
            now = []
    return [run for run in runs if len(run) > 1]


def plain(text: str) -> str:
    """As people type in a chat: no capitals, no marks."""
    return re.sub(r"[^a-z ]", "", text.lower())


@functools.cache
def corpus() -> dict[str, list]:
    """Three parts: what is read first, what is conversed about, and what a task is made of: train, validation, test."""
    pairs = [
        (a[-28:], b[:30])
        for run in _speeches()
        for a, b in zip(run, run[1:], strict=False)
        if len(a) > 8 and len(b) > 8
    ]
    cut = int(0.9 * len(pairs))
    said = [(plain(a), plain(b)) for a, b in pairs[cut:]]
    book = " ".join(text for run in _speeches() for text in run)
    at = shakespeare().find("From fairest creatures")
    verse = plain(re.sub(r"\s+", " ", shakespeare()[at : at + 95_000]))
    lines = [verse[i : i + LENGTH - 2] for i in range(0, len(verse) - LENGTH, LENGTH - 2)]
    return {"book": book[: int(0.9 * len(book))], "chat": pairs[:cut], "dialogue": said, "text": lines}


def numbers(text: str) -> list[int]:
    return [min(ord(letter), LETTERS - 1) for letter in text]


def exchange(pair, marks=(USER, ASSISTANT)) -> tuple[list[int], list[int]]:
    """Ids and labels of a question and its answer: only the answer and its end are scored."""
    asked = [marks[0], *numbers(pair[0]), marks[1]]
    said = [*numbers(pair[1]), END]
    return asked + said, [IGNORED] * len(asked) + said


def passage(text: str) -> tuple[list[int], list[int]]:
    """Ids and labels of a piece of text: all of it is scored, and there are no marks."""
    return numbers(text), numbers(text)


def batch(examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and labels, int64 [rows, longest]."""
    longest = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids, _ in examples])
    return ids, torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in examples])


def loss_of(net, ids, labels):
    """Nats a scored letter."""
    logits = net(ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def fresh(seed: int) -> LlamaForCausalLM:
    """A LLaMA with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=LETTERS + 6,
        hidden_size=WIDTH,
        intermediate_size=172,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        initializer_range=WIDTH**-0.5,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def train(net, draw, steps: int, rate: float, look=None, looks: int = 2) -> list:
    """AdamW, a short warm-up and a straight way down to zero; what `look(net)` gives, `looks` times on the way."""
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    seen = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 10 * (step + 1) / steps) * (1 - step / steps)
        optimizer.zero_grad()
        loss_of(net, *draw()).backward()
        optimizer.step()
        if look and (step + 1) % (steps // looks) == 0:
            seen.append(look(net))
    return seen


@functools.cache
def _states(seed: int) -> dict[str, dict]:
    """Weights of the model that has only read ("base") and of that which has conversed as well ("chat")."""
    net, g = fresh(seed), torch.Generator().manual_seed(seed)
    book, chat = torch.tensor(numbers(corpus()["book"])), corpus()["chat"]

    def read():
        starts = torch.randint(len(book) - LENGTH, (ROWS, 1), generator=g)
        ids = book[starts + torch.arange(LENGTH)]
        return ids, ids

    def converse():
        return batch([exchange(chat[i]) for i in torch.randint(len(chat), (ROWS,), generator=g).tolist()])

    train(net, read, *PRETRAINING)
    base = {name: w.clone() for name, w in net.state_dict().items()}
    train(net, converse, *CHATTING)
    return {"base": base, "chat": {name: w.clone() for name, w in net.state_dict().items()}}


def start(kind: str, seed: int) -> LlamaForCausalLM:
    """A model to be tuned: "fresh", "base" or "chat", of one seed."""
    net = fresh(seed + 500)
    if kind != "fresh":
        net.load_state_dict(_states(seed)[kind])
    return net


def task(kind: str, n: int, seed: int, marks=(USER, ASSISTANT)) -> dict[str, list]:
    """n examples to learn from, and what is judged by: validation and test, the same for every n."""
    made = [exchange(pair, marks) if kind == "dialogue" else passage(pair) for pair in corpus()[kind]]
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(1000 + seed)).tolist()
    mixed = [made[i] for i in order]
    return {"test": mixed[:120], "validation": mixed[120:180], "train": mixed[180 : 180 + n]}


@torch.no_grad()
def judged(net, examples) -> float:
    """Nats a scored letter, over all examples."""
    return float(loss_of(net, *batch(examples)))


def tuned(net, data, steps: int, rate: float, seed: int, rows: int = 16) -> tuple[float, float]:
    """Train; the least loss on the validation part of all looks, and the loss on the test part at that look."""
    g = torch.Generator().manual_seed(seed)
    examples = data["train"]

    def draw():
        return batch([examples[i] for i in torch.randint(len(examples), (rows,), generator=g).tolist()])

    looks = train(net, draw, steps, rate, lambda net: (judged(net, data["validation"]), judged(net, data["test"])))
    return min(looks)
