"""A small GPT that reads two or three pages again and again, with one cure at a time."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from labkit import shakespeare

LENGTH, STEPS, EVERY, ROWS, RATE = 32, 480, 40, 12, 4e-3
SYNONYMS = {
    "begin": "start", "big": "large", "brave": "bold", "bring": "fetch", "dear": "beloved", "death": "decease",
    "false": "untrue", "father": "sire", "fear": "dread", "fight": "battle", "find": "discover", "foe": "enemy",
    "friend": "companion", "gentle": "mild", "give": "grant", "glad": "happy", "go": "depart", "good": "fine",
    "great": "mighty", "hate": "loathe", "heaven": "paradise", "home": "house", "honest": "upright", "king": "monarch",
    "know": "understand", "lady": "mistress", "leave": "quit", "little": "small", "live": "dwell", "look": "gaze",
    "lord": "master", "love": "affection", "maid": "maiden", "make": "create", "man": "fellow", "mother": "dam",
    "noble": "worthy", "old": "aged", "poor": "needy", "praise": "commend", "queen": "sovereign", "rich": "wealthy",
    "sad": "sorrowful", "say": "tell", "see": "behold", "sir": "sirrah", "son": "child", "speak": "talk",
    "strange": "odd", "sweet": "pleasant", "sword": "blade", "think": "believe", "true": "faithful", "war": "strife",
    "weep": "cry", "wise": "prudent", "woman": "dame", "word": "term", "world": "earth", "young": "youthful",
}  # fmt: skip


@functools.cache
def alphabet() -> list[str]:
    """All letters of the book."""
    return sorted(set(shakespeare()))


def encoded(text: str) -> torch.Tensor:
    """The numbers of a text's letters, long [length]."""
    number = {letter: i for i, letter in enumerate(alphabet())}
    return torch.tensor([number[letter] for letter in text])


@functools.cache
def pages() -> dict[str, str]:
    """What the model reads, four times as much, and two parts behind it that it never reads."""
    book = shakespeare()
    return {
        "known": book[20_000:25_000],
        "more": book[5_000:25_000],
        "validation": book[25_000:35_000],
        "test": book[35_000:45_000],
    }


class OverTokens(nn.BatchNorm1d):
    """BatchNorm over all tokens of a batch, features last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., width]."""
        return super().forward(x.flatten(0, -2)).view_as(x)


NORMS = {"layer": nn.LayerNorm, "batch": OverTokens, "none": lambda width: nn.Identity()}


class Block(nn.Module):
    """Pre-norm attention and feed-forward; `norm` makes a norm of a given width, `drop` is applied to what is added."""

    def __init__(self, width: int, drop: nn.Module, norm: Callable):
        super().__init__()
        self.norm1, self.norm2, self.drop = norm(width), norm(width), drop
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [rows, n, width]."""
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.drop(self.out(heard))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


class GPT(nn.Module):
    """Letters in, scores of the next letter out: [rows, LENGTH] -> [rows, LENGTH, letters]."""

    def __init__(self, drop: nn.Module, norm: Callable = nn.LayerNorm, width: int = 64, depth: int = 2):
        super().__init__()
        self.letters = nn.Embedding(len(alphabet()), width)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.blocks = nn.Sequential(*(Block(width, drop, norm) for _ in range(depth)))
        self.drop, self.last, self.head = drop, norm(width), nn.Linear(width, len(alphabet()))

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        """letters: long [rows, LENGTH]."""
        return self.head(self.last(self.blocks(self.drop(self.letters(letters) + self.places))))


def batch(data: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets [ROWS, LENGTH] from random places of a text."""
    return windows(data, torch.randint(len(data) - LENGTH - 1, (ROWS,), generator=generator))


def windows(data: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets [starts, LENGTH] of a text."""
    cut = data[starts[:, None] + torch.arange(LENGTH + 1)]
    return cut[:, :-1], cut[:, 1:]


@torch.no_grad()
def loss_on(model: nn.Module, data: torch.Tensor, rows: int = 64) -> float:
    """The loss on windows that are spread evenly over a text, in evaluation mode, in nats a letter."""
    model.eval()
    inputs, targets = windows(data, torch.linspace(0, len(data) - LENGTH - 1, rows).long())
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item()
    model.train()
    return loss


def reworded(text: str, generator: torch.Generator) -> str:
    """The text with about half of the words that have a synonym here replaced by it."""

    def other(found):
        word = found.group()
        new = SYNONYMS.get(word.lower())
        if new is None or torch.rand((), generator=generator) < 0.5:
            return word
        return new.capitalize() if word[0].isupper() else new

    return re.sub(r"[A-Za-z]+", other, text)


def train(
    seed: int = 0,
    p: float = 0.0,
    smoothing: float = 0.0,
    decay: float = 0.0,
    norm: str = "layer",
    text: str = "known",
    augment: str = "",
    order: int = 1,
    rate: float = RATE,
) -> dict[str, list[float]]:
    """Train a new model; every EVERY steps its loss on each part: "step", "known", "validation", "test".

    augment: "synonyms" rewords the text anew every EVERY steps; "letters" replaces 5 % of the letters that the model
    reads by others, while its targets stay. order: the seed of the batches.
    """
    torch.manual_seed(seed)
    model = GPT(nn.Dropout(p), NORMS[norm])
    parts = {part: encoded(pages()[part]) for part in ("known", "validation", "test")}
    source, generator = encoded(pages()[text]), torch.Generator().manual_seed(1_000 * seed + order)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=True)
    curve = {"step": [], **{part: [] for part in parts}}
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            curve["step"].append(step)
            for part, data in parts.items():
                curve[part].append(loss_on(model, data))
            if augment == "synonyms":
                source = encoded(reworded(pages()[text], generator))
        inputs, targets = batch(source, generator)
        if augment == "letters":
            swapped = torch.rand(inputs.shape, generator=generator) < 0.05
            inputs = torch.where(swapped, torch.randint(len(alphabet()), inputs.shape, generator=generator), inputs)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return curve
