"""Questions with a right and a wrong answer, and a small chat model that answers them and judges answers."""

from __future__ import annotations

import functools
import re

import torch

from labkit import smollm

# question, what the answer is about, the same in other words, right, wrong
ITEMS = (
    ("What is the capital of France?", "The capital of France", "The chief city of France", "Paris", "Berlin"),
    ("What is the capital of Italy?", "The capital of Italy", "The chief city of Italy", "Rome", "Vienna"),
    ("What is the capital of Japan?", "The capital of Japan", "The chief city of Japan", "Tokyo", "Beijing"),
    ("What is the capital of Egypt?", "The capital of Egypt", "The chief city of Egypt", "Cairo", "Lagos"),
    ("What is the capital of Spain?", "The capital of Spain", "The chief city of Spain", "Madrid", "Lisbon"),
    ("What is the capital of Germany?", "The capital of Germany", "The chief city of Germany", "Berlin", "Paris"),
    ("What is the largest ocean?", "The largest ocean", "The biggest ocean", "the Pacific", "the Arctic"),
    ("What is the highest mountain?", "The highest mountain", "The tallest mountain", "Mount Everest", "Mont Blanc"),
    ("Which planet is closest to the sun?", "The planet closest to the sun", "The planet nearest to the sun", "Mercury",
     "Neptune"),
    ("Which planet has large rings?", "The planet with large rings", "The planet with big rings", "Saturn", "Mars"),
    ("What is the largest planet?", "The largest planet", "The biggest planet", "Jupiter", "Mercury"),
    ("Who wrote Hamlet?", "The author of Hamlet", "The writer of Hamlet", "Shakespeare", "Darwin"),
    ("Who painted the Mona Lisa?", "The painter of the Mona Lisa", "The artist behind the Mona Lisa",
     "Leonardo da Vinci", "Pablo Picasso"),
    ("What do bees make?", "What bees make", "What bees produce", "honey", "bread"),
    ("What do cows drink as calves?", "What calves drink", "What young cows drink", "milk", "oil"),
    ("What is frozen water called?", "The name of frozen water", "The word for frozen water", "ice", "sand"),
    ("What color is the sky on a clear day?", "The color of a clear sky", "The hue of a clear sky", "blue", "green"),
    ("What color is snow?", "The color of snow", "The hue of snow", "white", "black"),
    ("What color is blood?", "The color of blood", "The hue of blood", "red", "blue"),
    ("What is the opposite of hot?", "The opposite of hot", "The contrary of hot", "cold", "loud"),
    ("What is the opposite of up?", "The opposite of up", "The contrary of up", "down", "left"),
    ("What is the opposite of early?", "The opposite of early", "The contrary of early", "late", "soon"),
    ("What gas do people breathe to live?", "The gas people breathe to live", "The gas humans breathe to live",
     "oxygen", "helium"),
    ("What pulls things to the ground?", "The force that pulls things down", "The force that draws things down",
     "gravity", "music"),
    ("What organ pumps the blood?", "The organ that pumps blood", "The organ that moves blood", "the heart",
     "the stomach"),
    ("What do we use to see?", "What we see with", "What we look with", "the eyes", "the ears"),
    ("Which animal barks?", "The animal that barks", "The creature that barks", "the dog", "the fish"),
    ("Which animal gives wool?", "The animal that gives wool", "The creature that gives wool", "the sheep",
     "the snake"),
    ("Which animal is the largest on land?", "The largest animal on land", "The biggest animal on land",
     "the elephant", "the mouse"),
    ("Which season comes after winter?", "The season after winter", "The season following winter", "spring", "autumn"),
    ("Which month comes after June?", "The month after June", "The month following June", "July", "March"),
    ("Which day comes after Monday?", "The day after Monday", "The day following Monday", "Tuesday", "Friday"),
    ("What is the first month of the year?", "The first month of the year", "The opening month of the year", "January",
     "October"),
    ("In which city is the Eiffel Tower?", "The city of the Eiffel Tower", "The home of the Eiffel Tower", "Paris",
     "Madrid"),
    ("On which continent is Kenya?", "The continent of Kenya", "The continent where Kenya lies", "Africa", "Europe"),
    ("On which continent is Brazil?", "The continent of Brazil", "The continent where Brazil lies", "South America",
     "Asia"),
    ("What language is spoken in Mexico?", "The language of Mexico", "The tongue of Mexico", "Spanish", "Russian"),
    ("What metal is attracted by magnets?", "The metal that magnets attract", "The metal that magnets pull", "iron",
     "gold"),
    ("What do plants need from the sun?", "What plants need from the sun", "What plants take from the sun", "light",
     "salt"),
    ("What falls from clouds?", "What falls from clouds", "What drops from clouds", "rain", "stones"),
)  # fmt: skip
FILLER = " I am happy to help you with this, and I hope that my answer is of use to you."
WORDINGS = {
    "the same again": lambda subject, other, value: f"{subject} is {value}.",
    "synonyms": lambda subject, other, value: f"{other} is {value}.",
    "turned round": lambda subject, other, value: (
        f"{value[0].upper()}{value[1:]} is {subject[0].lower()}{subject[1:]}."
    ),
    "shortened": lambda subject, other, value: f"It's {value}.",
    "with a polite phrase": lambda subject, other, value: f"{subject} is {value}.{FILLER}",
}
ASK = "Question: {}\nAnswer A: {}\nAnswer B: {}\nWhich answer is better? Reply with the letter A or B only."
SAMPLES, LONGEST = 6, 16


def answer(item: tuple, right: bool, wording: str = "the same again") -> str:
    """The right or the wrong answer to a question of ITEMS, worded one way."""
    return WORDINGS[wording](item[1], item[2], item[3] if right else item[4])


def _prompt(text: str) -> str:
    chat = [{"role": "user", "content": text}]
    return smollm()[1].apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


@torch.inference_mode()
def _last_states(texts: list[str], batch: int = 8) -> list[torch.Tensor]:
    """The model's state at each text's tokens, [tokens, width] a text."""
    model, tokenizer = smollm()
    found = []
    for start in range(0, len(texts), batch):
        given = tokenizer(texts[start : start + batch], return_tensors="pt", padding=True, padding_side="right")
        states = model.model(**given).last_hidden_state
        found += [row[mask.bool()] for row, mask in zip(states, given.attention_mask, strict=True)]
    return found


@torch.inference_mode()
def named_first(asked: list[tuple[str, str, str]]) -> list[float]:
    """Of each (question, answer A, answer B) the log-odds that the judge says A."""
    model, tokenizer = smollm()
    letters = [tokenizer(letter, add_special_tokens=False).input_ids[-1] for letter in "AB"]
    between = model.lm_head.weight[letters[0]] - model.lm_head.weight[letters[1]]
    return [float(states[-1] @ between) for states in _last_states([_prompt(ASK.format(*each)) for each in asked])]


@torch.inference_mode()
def likelihood(said: list[tuple[str, str]]) -> list[float]:
    """Of each (question, answer) the mean log-probability of the answer's tokens after the question."""
    model, tokenizer = smollm()
    prompts = [_prompt(question) for question, _ in said]
    found = []
    states = _last_states([prompt + text for prompt, (_, text) in zip(prompts, said, strict=True)])
    for prompt, (_, text), each in zip(prompts, said, states, strict=True):
        ids = tokenizer(prompt + text).input_ids
        start = len(tokenizer(prompt).input_ids)
        odds = model.lm_head(each[start - 1 : -1]).log_softmax(-1)
        found.append(float(odds.gather(-1, torch.tensor(ids[start:])[:, None]).mean()))
    return found


@torch.inference_mode()
def sampled(questions: list[str], seed: int) -> list[list[str]]:
    """SAMPLES answers to each question, drawn at temperature 1 and cut at the first line's end."""
    model, tokenizer = smollm()
    torch.manual_seed(seed)
    found = []
    for question in questions:
        given = tokenizer(_prompt(f"{question} Answer in one short sentence."), return_tensors="pt")
        ids = model.generate(**given, do_sample=True, num_return_sequences=SAMPLES, max_new_tokens=LONGEST)
        texts = tokenizer.batch_decode(ids[:, given.input_ids.shape[1] :], skip_special_tokens=True)
        found.append([text.strip().split("\n")[0] for text in texts])
    return found


@functools.cache
def _pattern(value: str) -> re.Pattern:
    core = value.removeprefix("the ")
    return re.compile(rf"\b{re.escape(core)}", re.IGNORECASE)


def holds(item: tuple, text: str) -> bool:
    """The verifier: whether a text names the right answer."""
    return bool(_pattern(item[3]).search(text))
