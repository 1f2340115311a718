"""Questions about PyTorch's documentation, pages of it, and a small chat model that answers with or without them."""

from __future__ import annotations

import functools
import random
import re

import torch

from labkit import batches, docstrings, questions, smollm

WORDS, LONGEST = 40, 14
BEGUN = "It is `torch."  # the answer's first words are given, so that a name follows
ASK = "Question: {}\nWhich function or class of PyTorch is it? Reply with its name only."


@functools.cache
def texts() -> dict[str, str]:
    """The first words of each passage's prose, without its signature, by name."""
    return {one.name: " ".join(re.sub(r"\A[\w.]+\(.*\n", "", one.text).split()[:WORDS]) for one in docstrings()}


def some(seed: int, count: int) -> list:
    """Questions of one seed: no question belongs to two seeds, as long as there are enough."""
    order = random.Random(0).sample(questions(), len(questions()))
    return order[seed * count : (seed + 1) * count]


def page(name: str, text: str | None = None) -> str:
    """A passage as it stands in a prompt."""
    return f"{name}: {texts()[name] if text is None else text}"


def asked(question: str, pages: list[str]) -> str:
    """The prompt: numbered sources, if there are any, and the question."""
    sources = "".join(f"[{number}] {each}\n" for number, each in enumerate(pages, 1))
    order = "Answer from the sources alone.\n" if pages else ""
    return f"{order}{sources}{ASK.format(question)}"


@torch.inference_mode()
def write(prompts: list[str], begun: str = "", longest: int = LONGEST) -> list[str]:
    """How the chat model goes on after `begun`, the beginning of its answer, greedily, for each prompt."""
    model, tokenizer = smollm()
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": each}], tokenize=False, add_generation_prompt=True)
        + begun
        for each in prompts
    ]
    found = [""] * len(chats)
    for places in batches([len(tokenizer(chat).input_ids) for chat in chats]):
        given = tokenizer([chats[i] for i in places], return_tensors="pt", padding=True, padding_side="left")
        written = model.generate(**given, max_new_tokens=longest)[:, given.input_ids.shape[1] :]
        for i, text in zip(places, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            found[i] = text
    return found


def answers(prompts: list[str]) -> list[str]:
    """The name that the chat model gives to each prompt."""
    return ["torch." + re.split(r"[`(\s]", text, maxsplit=1)[0] for text in write(prompts, BEGUN)]


def names(text: str, *accepted: str) -> bool:
    """Whether an answer ends in the last part of one of the names; in-place twins and capitals are the same."""
    return _last(text) in {_last(name) for name in accepted}


def _last(name: str) -> str:
    return name.rstrip(".").rpartition(".")[2].replace("_", "").lower()
