"""What the experiments on repetition share: prompts, a model that writes, ways to choose the next token, and measures.

The model is SmolLM2-135M-Instruct in float32. In bf16 two implementations of attention round differently, and a greedy
text that takes another turn once is another text from there on.
"""

from __future__ import annotations

import functools

import torch
from transformers import DynamicCache, NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from labkit import shakespeare, smollm
from labkit.experiment import Interval, interval

LOOPING, BROKEN = 0.20, 0.10  # shares of repeated 4-grams: surely above the first, surely below the second
STEPS = 200
PROMPT = 7
LENGTHS = (25, 50, 100, 150, 200)
OPENINGS = (
    "When the two robots met for the first time",
    "On the first day of the expedition the team",
    "My grandmother always said that the best way",
    "The city council announced on Monday that the",
    "I have a dream that one day we will",
    "The most important thing in life is to be",
    "To make a good soup, you first have to",
    "The old library at the end of the street",
    "Scientists have found a new species of frog in",
    "In the winter of 1887 a young doctor",
    "Every morning before school, the children would run",
    "The history of the bicycle begins with a",
    "After the storm had passed, the fishermen",
    "A good teacher knows that students learn best when",
    "The train to the coast was late again, and",
    "Once upon a time there was a miller who",
    "The company reported that its profits had fallen",
    "If you want to grow tomatoes on a balcony",
    "Deep below the surface of the ocean, there",
    "The judge looked at the two lawyers and said",
    "Music has been a part of my life since",
    "The mountain village had no electricity until the",
    "When you write a letter to a friend,",
    "The new bridge across the river will be",
    "She opened the box and found a small silver",
    "The causes of the war were many, but",
    "Birds that fly south in the autumn use the",
    "My first job was in a small restaurant near",
    "The computer had been running for three days when",
    "Many people believe that coffee is bad for",
    "The detective put his hat on the table and",
    "Our solar system has eight planets, and each",
)
CAPITALS = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Australia": "Canberra",
    "Canada": "Ottawa",
    "Egypt": "Cairo",
    "Norway": "Oslo",
    "Ghana": "Accra",
    "Turkey": "Ankara",
    "Mongolia": "Ulaan",
    "Vietnam": "Hanoi",
    "Nepal": "Kathmandu",
    "Laos": "Vientiane",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Poland": "Warsaw",
    "Greece": "Athens",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Hungary": "Budapest",
    "Austria": "Vienna",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Colombia": "Bogot",
    "Uruguay": "Montevideo",
    "Ethiopia": "Addis",
    "Uganda": "Kampala",
    "Senegal": "Dakar",
    "Zambia": "Lusaka",
    "Sudan": "Khartoum",
    "Morocco": "Rabat",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Thailand": "Bangkok",
    "Malaysia": "Kuala Lumpur",
    "Fiji": "Suva",
    "Iceland": "Reykjav",
    "Romania": "Bucharest",
}
PATTERNS = (
    "1, 2, 3, 1, 2, 3",
    "x = x + 1; y = y + 1; z = z + 1",
    "red, blue, red, blue, red, blue",
    "The cat sat on the mat. The dog sat on the mat.",
    "for i in a: for j in b: print(i, j)",
    "A, B, C, A, B, C",
    "yes, no, yes, no, yes, no",
    "left, right, left, right",
    "I came, I saw, I won.",
    "one, one, two, two, three, three",
    "tick tock tick tock tick tock",
    "north, south, north, south",
    "The sun is hot. The sun is big.",
    "10, 20, 10, 20, 10, 20",
    "row, row, row your boat",
    "black tea, green tea, white tea",
    "open the door, close the door",
    "a + b = c; a + c = b",
    "Monday, Tuesday, Monday, Tuesday",
    "never, never, never give up",
    "salt and pepper, salt and sugar",
    "if x: return x",
    "the more you read, the more you know",
    "up and down and up and down",
)


def loaded():
    """The model and its tokenizer."""
    return smollm(torch.float32)


def openings(first: int | None = None) -> torch.Tensor:
    """The first seven tokens of each opening: int64 [openings, 7]."""
    _, tokenizer = loaded()
    return torch.tensor([tokenizer(text).input_ids[:PROMPT] for text in OPENINGS[:first]])


@functools.cache
def passages(length: int, count: int = len(OPENINGS)) -> torch.Tensor:
    """What people wrote: int64 [count, length], passages of Shakespeare from places drawn by chance."""
    _, tokenizer = loaded()
    plays, chance = shakespeare(), torch.Generator().manual_seed(5)
    places = torch.randint(len(plays) - 10_000, (count,), generator=chance).tolist()
    return torch.tensor([tokenizer(plays[at : at + 8 * length]).input_ids[:length] for at in places])


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids, padded on the left: ids and mask, both [rows, longest]."""
    _, tokenizer = loaded()
    longest = max(map(len, rows))
    ids = [[tokenizer.eos_token_id] * (longest - len(row)) + list(row) for row in rows]
    return torch.tensor(ids), torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])


@torch.inference_mode()
def write(ids, choose, steps, mask=None, window=None, may_end=False):
    """Continue every row of `ids` [rows, length] by `steps` tokens; `choose(ids, logits, length)` gives one a row.

    mask: False where a prompt is padded. window: of what it wrote itself the model sees only that many tokens. Unless
    `may_end`, the end of text is not to be had. Returns the tokens and their negative log-likelihoods under the model
    itself, before any knob, both [rows, steps].
    """
    model, tokenizer = loaded()
    start, cache, read, nats = ids.shape[1], DynamicCache(), ids, []
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    for _ in range(steps):
        seen = mask.clone()
        if window is not None:
            seen[:, start : max(start, mask.shape[1] - window)] = False
        logits = model(read, attention_mask=seen, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        if not may_end:
            logits[:, tokenizer.eos_token_id] = -torch.inf
        read = choose(ids, logits, start)[:, None]
        nats.append(logits.logsumexp(-1, keepdim=True) - logits.gather(-1, read))
        ids, mask = torch.cat([ids, read], 1), torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return ids[:, start:], torch.cat(nats, 1)


def greedy(ids, logits, start):
    """The likeliest token."""
    return logits.argmax(-1)


def heated(temperature):
    """A token drawn at this temperature, from torch's own generator."""
    return lambda ids, logits, start: torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]


def without_repeats(n):
    """Greedy, but no n-gram twice, the prompt's included; as transformers has it."""
    process = NoRepeatNGramLogitsProcessor(n)
    return lambda ids, logits, start: process(ids, logits).argmax(-1)


def penalised(penalty):
    """Greedy under CTRL's repetition penalty, which counts the prompt, too; as transformers has it."""
    process = RepetitionPenaltyLogitsProcessor(penalty)
    return lambda ids, logits, start: process(ids, logits).argmax(-1)


def charged(frequency, presence):
    """Greedy under OpenAI's penalties, which count what was written, not the prompt."""

    def choose(ids, logits, start):
        said = ids[:, start:]
        counts = torch.zeros_like(logits).scatter_add(-1, said, torch.ones(said.shape))
        return (logits - frequency * counts - presence * (counts > 0)).argmax(-1)

    return choose


def repeated(tokens, n: int = 4) -> float:
    """The share of a text's n-grams that stood in it before (seq-rep-n)."""
    tokens = list(map(int, tokens))
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams)


def habits(texts, nats=None) -> dict[str, list]:
    """What is measured of texts [rows, length]: one number a text; `curve` has one for each of LENGTHS."""
    found = {
        "repeated": [repeated(text) for text in texts],
        "pairs": [repeated(text, 2) for text in texts],
        "curve": [[repeated(text[:length]) for length in LENGTHS if length <= len(text)] for text in texts],
    }
    return found if nats is None else found | {"nll": nats.mean(1)}


def answers(questions, choose, steps=20) -> list[str]:
    """What the chat model answers to each question, up to the end of its turn or to `steps` tokens."""
    _, tokenizer = loaded()
    turns = [[{"role": "user", "content": question}] for question in questions]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    ids, mask = padded([tokenizer(text).input_ids for text in texts])
    said, _ = write(ids, choose, steps, mask=mask, may_end=True)
    end = tokenizer.eos_token_id
    return [tokenizer.decode(row[: row.index(end)] if end in row else row) for row in said.tolist()]


@functools.cache
def greedy_texts():
    """Greedy texts and their negative log-likelihoods. Several experiments start from them."""
    return write(openings(), greedy, STEPS)


def over(found, arm: str, number: str) -> list:
    """One value a prompt (or task), over all seeds."""
    return [value for each in found.each(arm, number) for value in each]


def less(found, much: str, little: str, number: str) -> Interval:
    """How much higher one arm is than another, prompt by prompt."""
    pairs = zip(over(found, much, number), over(found, little, number), strict=True)
    return interval([a - b for a, b in pairs])


def percent(each: Interval) -> str:
    """An interval of shares for a sentence: "12 to 34"."""
    return f"{100 * each.low:.0f} to {100 * each.high:.0f}"


def told(found) -> dict[str, str]:
    """Each arm's share of repeated 4-grams for cards and figures: its mean, and its interval as NAME_range."""
    each = {arm: interval(over(found, arm, "repeated")) for arm in found.arms if "cut short" not in arm}
    mean = {arm.replace(" ", "_"): f"{100 * rate.mean:.0f} %" for arm, rate in each.items()}
    return mean | {f"{arm.replace(' ', '_')}_range": f"{percent(rate)} %" for arm, rate in each.items()}


def controls(found, loops: str) -> dict[str, bool]:
    """Whether this arm's texts loop and people's don't."""
    return {
        "shows": interval(over(found, loops, "repeated")).above(LOOPING),
        "shows_not": interval(over(found, "people", "repeated")).below(BROKEN),
    }
