"""The real model, tuned in its upper layers: appointments and facts, what A01.6 and A04.1 share."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from experiments.adapter import adapt
from labkit import smollm

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
RANK, ALPHA, BATCH, LONGEST = 8, 16, 8, 11

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Irene", "Jonas",
    "Karen", "Leo", "Maria", "Noah", "Olivia", "Paul", "Rosa", "Simon", "Tara", "Victor",
)  # fmt: skip
WORDINGS = (
    "Please book {n} for {d} at {h} {m}.",
    "Can I see {n} on {d}, {h} {m}?",
    "{n} is coming on {d} at {h} {m}.",
    "On {d} at {h} {m} I meet {n}.",
    "Put {n} into my calendar: {d}, {h} {m}.",
    "I need an hour with {n} on {d} at {h} {m}.",
)
OTHER_WORDINGS = (
    "Would {h} {m} on {d} suit {n}?",
    "Tell {n} that I am free on {d} from {h} {m} on.",
    "My lunch with {n} was moved to {h} {m} this {d}.",
)
ORDER = "Write the appointment as one line: the day in three capital letters, the hour, the name.\n"


def appointments(n: int, dice: random.Random, wordings=WORDINGS) -> list[tuple[str, str]]:
    """Requests and the line that is wanted: ("Can I see Anna on Friday, 3 pm?", "FRI 3pm Anna")."""
    made = []
    for _ in range(n):
        day, name, hour, half = dice.choice(DAYS), dice.choice(NAMES), dice.randint(1, 12), dice.choice(("am", "pm"))
        request = dice.choice(wordings).format(n=name, d=day, h=hour, m=half)
        made.append((request, f"{day[:3].upper()} {hour}{half} {name}"))
    return made


def prompt(text: str, before=()) -> str:
    """A question as the model's own template has it; `before` holds (question, answer) turns."""
    turns = [turn for q, a in before for turn in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]
    chat = [SYSTEM, *turns, {"role": "user", "content": text}]
    return smollm()[1].apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


@torch.inference_mode()
def answers(prompts: list[str]) -> list[str]:
    """What the model says, greedily, at most LONGEST tokens."""
    model, tokenizer = smollm()
    given = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    ids = model.generate(**given, max_new_tokens=LONGEST)
    said = tokenizer.batch_decode(ids[:, given.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in said]


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def tune(pairs: list[tuple[str, str]], first: int, rate: float, epochs: int, seed: int) -> list:
    """LoRA on every linear layer from layer `first` on; loss on the answers alone. The layers that carry adapters.

    The layers below are frozen, so what they say to each example is computed once.
    """
    model, tokenizer = smollm()
    body, layers = model.model, model.model.layers[first:]
    model.requires_grad_(False)
    torch.manual_seed(seed)
    trained = adapt(layers, RANK, ALPHA)
    rows = []
    with torch.no_grad():
        for question, answer in pairs:
            asked = tokenizer(prompt(question)).input_ids
            ids = asked + tokenizer(answer + "<|im_end|>").input_ids
            low = _through(body, body.layers[:first], body.embed_tokens(torch.tensor([ids])))[0]
            rows.append((len(asked), torch.tensor(ids), low))
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.0)
    dice = torch.Generator().manual_seed(seed)
    steps, done = epochs * -(-len(rows) // BATCH), 0
    for _ in range(epochs):
        for some in torch.randperm(len(rows), generator=dice).split(BATCH):
            chosen = [rows[i] for i in some]
            longest = max(len(ids) for _, ids, _ in chosen)
            low = torch.stack([F.pad(x, (0, 0, 0, longest - len(x))) for _, _, x in chosen])
            states = body.norm(_through(body, layers, low))
            before = torch.cat([x[asked - 1 : len(ids) - 1] for x, (asked, ids, _) in zip(states, chosen, strict=True)])
            loss = F.cross_entropy(model.lm_head(before), torch.cat([ids[asked:] for asked, ids, _ in chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (done + 1) / 5) * (1 - done / steps)
            optimizer.step()
            done += 1
    return layers


def _through(body, layers, x):
    """Hidden states [rows, n, width] through some layers. Rows are padded on the right, where nothing is read."""
    places = torch.arange(x.shape[1])[None]
    turned = body.rotary_emb(x, places)
    for layer in layers:
        x = layer(x, attention_mask=None, position_ids=places, position_embeddings=turned)
    return x
