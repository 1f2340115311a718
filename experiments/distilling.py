"""A teacher and its students, both small LLaMAs on the letters of Shakespeare: what the experiments on A05 share."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from labkit import shakespeare

LENGTH, ROWS = 48, 16
TEACHER, STUDENT = (96, 3), (32, 2)  # width and layers
TEACHER_STEPS, TEACHER_RATE = 2500, 6e-3
POINTS = 8  # how often a run is looked at


@functools.cache
def texts() -> dict[str, torch.Tensor]:
    """Four parts of the book as numbers of letters; `little` is the beginning of the training text."""
    book = shakespeare()
    alphabet = {letter: i for i, letter in enumerate(sorted(set(book)))}
    data = torch.tensor([alphabet[letter] for letter in book])
    train = data[:4_500_000]
    return {"train": train, "little": train[:20_000], "validation": data[4_500_000:4_800_000], "test": data[4_800_000:]}


@functools.cache
def letters() -> int:
    """How many different letters there are."""
    return len(set(shakespeare()))


def draw(part: str, rows: int, generator: torch.Generator) -> torch.Tensor:
    """Pieces of a part of the book: int64 [rows, LENGTH + 1], inputs and targets together."""
    data = texts()[part]
    starts = torch.randint(len(data) - LENGTH, (rows, 1), generator=generator)
    return data[starts + torch.arange(LENGTH + 1)]


def fresh(size: tuple[int, int], seed: int) -> LlamaForCausalLM:
    """A LLaMA of (width, layers) with random weights."""
    width, layers = size
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=letters(),
        hidden_size=width,
        intermediate_size=round(8 / 3 * width),
        num_hidden_layers=layers,
        num_attention_heads=4,
        initializer_range=width**-0.5,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def weights(net) -> int:
    """Weights that multiply: all but the table of embeddings, which is only looked up."""
    return sum(w.numel() for w in net.parameters()) - net.get_input_embeddings().weight.numel()


def logits_of(net, ids: torch.Tensor) -> torch.Tensor:
    """[rows, n, letters], for ids [rows, n]."""
    return net(ids, use_cache=False).logits


def cross_entropy(logits, pieces) -> torch.Tensor:
    """Nats a letter, of logits [rows, LENGTH, letters] and pieces [rows, LENGTH + 1]."""
    return F.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())


def divergence(p, q) -> torch.Tensor:
    """KL(p || q), the mean over tokens, from logits [rows, n, letters]."""
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def train(net, loss, steps: int, rate: float, look=None):
    """AdamW with a short warm-up and a cosine down to a tenth; `loss()` gives each step's loss.

    `look(net)` is called POINTS times, the last time at the end; what it gives is returned as a list.
    """
    optimizer = torch.optim.AdamW(net.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    looks = []
    for step in range(steps):
        fall = 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate * fall * min(1.0, (step + 1) / 50)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if look and (step + 1) * POINTS // steps > step * POINTS // steps:
            looks.append(look(net))
    return looks


def on_text(net, part: str, seed: int, teacher=None):
    """The loss of one step on pieces of a text: cross-entropy with its letters, or KL from the teacher's logits."""
    generator = torch.Generator().manual_seed(seed)

    def loss():
        pieces = draw(part, ROWS, generator)
        logits = logits_of(net, pieces[:, :-1])
        if teacher is None:
            return cross_entropy(logits, pieces)
        with torch.no_grad():
            soft = logits_of(teacher, pieces[:, :-1])
        return divergence(soft, logits)

    return loss


@functools.cache
def teacher_of(steps: int = TEACHER_STEPS):
    """The teacher, trained on the whole training text; with 0 steps one that knows nothing."""
    net = fresh(TEACHER, 100)
    train(net, on_text(net, "train", 100), steps, TEACHER_RATE)
    return net.eval().requires_grad_(False)


@functools.cache
def _pieces(part: str) -> torch.Tensor:
    return draw(part, 256, torch.Generator().manual_seed(5))


@functools.cache
def _teachers_logits(part: str, steps: int) -> torch.Tensor:
    with torch.no_grad():
        return logits_of(teacher_of(steps), _pieces(part)[:, :-1])


@torch.no_grad()
def judged(net, part: str, teacher_steps: int = TEACHER_STEPS) -> dict[str, float]:
    """Nats a letter, the share of letters that are guessed right, and how far from the trained teacher it is."""
    pieces, soft = _pieces(part), _teachers_logits(part, teacher_steps)
    logits = logits_of(net, pieces[:, :-1])
    guess = logits.argmax(-1)
    return {
        "loss": cross_entropy(logits, pieces).item(),
        "right": (guess == pieces[:, 1:]).float().mean().item(),
        "divergence": divergence(soft, logits).item(),
        "agrees": (guess == soft.argmax(-1)).float().mean().item(),
    }


@torch.no_grad()
def write(net, prompts: torch.Tensor, length: int, temperature: float = 1.0) -> torch.Tensor:
    """Continue each row of prompts [rows, n] by `length` letters drawn at a temperature: [rows, n + length]."""
    cache, read, ids = DynamicCache(), prompts, prompts
    for _ in range(length):
        logits = net(read, past_key_values=cache, use_cache=True).logits[:, -1]
        read = torch.multinomial((logits / temperature).softmax(-1), 1)
        ids = torch.cat([ids, read], 1)
    return ids
