"""A05.3: word by word, by the teacher's texts, or by the student's own texts: what each does to quality and variety."""

from __future__ import annotations

import functools

import torch

from experiments.distilling import (
    LENGTH,
    ROWS,
    STUDENT,
    TEACHER_STEPS,
    cross_entropy,
    divergence,
    draw,
    fresh,
    judged,
    logits_of,
    on_text,
    teacher_of,
    train,
    write,
)
from labkit.experiment import Experiment

FIRST, STEPS, PROMPT = 300, 150, 8
FIRST_RATE, RATES = 2e-2, (1e-2, 3e-2, 6e-2)
BANK = 1200  # texts that the teacher writes for its students
WRITTEN = 256  # texts on which a student is judged

experiment = Experiment(
    claim="A05.3",
    question="Does distillation work through data alone, and what do its kinds do to quality and variety?",
    arms={
        "people": {"by": "people"},
        "teacher": {"by": "teacher"},
        "teacher, T = 0.5": {"by": "teacher", "temperature": 0.5},
        "text alone": {"by": "text"},
        "text alone, T = 0.8": {"by": "text", "write_at": 0.8},
        "word by word": {"by": "forward"},
        "word by word, reversed": {"by": "reverse"},
        "teacher's texts": {"by": "sequence"},
        "teacher's texts, T = 0.5": {"by": "sequence", "temperature": 0.5},
        "own texts, forward KL": {"by": "own forward"},
        "own texts, reverse KL": {"by": "own reverse"},
        "cut short": {"by": "own reverse", "steps": 8, "first": 60, "teacher_steps": 60, "rates": (1e-2,)},
    },
    seeds=range(3),
    shows="teacher, T = 0.5",
    shows_not="people",
    live=("cut short", 0),
    within={"disliked": 0.5, "entropy": 0.5, "distinct": 0.2, "loss": 0.2, "rate": 0.0},
)


@experiment.measure
def measure(
    seed, by, temperature=1.0, write_at=1.0, steps=STEPS, first=FIRST, teacher_steps=TEACHER_STEPS, rates=RATES
):
    """A student learns from the text alone first; then every kind gets as many tokens. Judged by what it writes.

    temperature: at which the teacher writes. write_at: at which the student does, where it is judged.
    """
    teacher = teacher_of(teacher_steps)
    if by in ("people", "teacher"):
        return _habits(teacher, seed, by, temperature, teacher_steps)
    rate = rates[0] if len(rates) == 1 else _best_rate(by, temperature, rates)
    net = _learn(seed, by, temperature, rate, steps, first, teacher_steps)
    found = _habits(net, seed, "student", write_at, teacher_steps)
    return found | {"loss": judged(net, "test", teacher_steps)["loss"], "rate": rate}


def _learn(seed, by, temperature, rate, steps=STEPS, first=FIRST, teacher_steps=TEACHER_STEPS):
    net = fresh(STUDENT, seed)
    net.load_state_dict(_beginner(seed, first))
    torch.manual_seed(seed)
    train(net, _lesson(net, teacher_of(teacher_steps), by, temperature, "train", seed, ROWS), steps, rate)
    return net


@functools.cache
def _beginner(seed, first):
    """The weights of a student that has read the text alone."""
    net = fresh(STUDENT, seed)
    train(net, on_text(net, "train", seed), first, FIRST_RATE)
    return net.state_dict()


@functools.cache
def _bank(temperature, part, seed):
    """Texts of the teacher, each begun by people: int64 [BANK, LENGTH + 1]."""
    torch.manual_seed(70 + seed)
    prompts = draw(part, BANK, torch.Generator().manual_seed(70 + seed))[:, :PROMPT]
    return write(teacher_of(TEACHER_STEPS), prompts, LENGTH + 1 - PROMPT, temperature)


def _lesson(net, teacher, by, temperature, part, seed, rows):
    """The loss of one step, behind the first PROMPT letters of each text.

    by: cross-entropy with the "text" itself or with the teacher's ("sequence"), or a KL ("forward" from the teacher's
    logits, "reverse" from the student's) on people's texts, or, with "own" in front, on texts of the student.
    """
    generator = torch.Generator().manual_seed(50 + seed)

    def loss():
        if by == "sequence":
            texts = _bank(temperature, part, seed)
            pieces = texts[torch.randint(len(texts), (rows,), generator=generator)]
        else:
            pieces = draw(part, rows, generator)
        if by.startswith("own"):
            pieces = write(net, pieces[:, :PROMPT], LENGTH + 1 - PROMPT)
        own = logits_of(net, pieces[:, :-1])[:, PROMPT - 1 :]
        if by in ("text", "sequence"):
            return cross_entropy(own, pieces[:, PROMPT - 1 :])
        with torch.no_grad():
            soft = logits_of(teacher, pieces[:, :-1])[:, PROMPT - 1 :]
        return divergence(own, soft) if by.endswith("reverse") else divergence(soft, own)

    return loss


@functools.cache
def _best_rate(by, temperature, rates):
    """Each kind's own loss says it, on the validation text, with a seed that is not among those that are reported."""
    found = {}
    for rate in rates:
        net = _learn(10, by, temperature, rate)
        with torch.no_grad():
            torch.manual_seed(9)
            found[rate] = _lesson(net, teacher_of(TEACHER_STEPS), by, temperature, "validation", 10, WRITTEN)().item()
    return min(found, key=found.get)


@torch.no_grad()
def _habits(net, seed, by, temperature, teacher_steps):
    """Of WRITTEN texts: nats a letter under the teacher, the writer's own entropy, the share of distinct 5-grams."""
    torch.manual_seed(200 + seed)
    pieces = draw("test", WRITTEN, torch.Generator().manual_seed(200 + seed))[:, :LENGTH]
    if by != "people":
        pieces = write(net, pieces[:, :PROMPT], LENGTH - PROMPT, temperature)
    said = pieces[:, PROMPT:]
    judge, own = (logits_of(each, pieces)[:, PROMPT - 1 : -1] for each in (teacher_of(teacher_steps), net))
    disliked = -judge.log_softmax(-1).gather(-1, said[..., None]).mean()
    log_p = (own / temperature).log_softmax(-1)
    grams = said.unfold(-1, 5, 1).flatten(0, 1)
    return {
        "disliked": disliked.item(),
        "entropy": -(log_p.exp() * log_p).sum(-1).mean().item(),
        "distinct": len(set(map(tuple, grams.tolist()))) / len(grams),
    }


@experiment.conclude
def conclude(found):
    """Imprecise if a student also surely learns from the teacher where no text is changed; correct if only else."""
    gain = {arm: found.interval("text alone", "loss", minus=arm) for arm in ("word by word", "teacher's texts")}
    like = {arm: found.interval("text alone", "disliked", minus=arm) for arm in ("word by word", "teacher's texts")}
    if gain["word by word"].above(0):
        word = "imprecise"
    else:
        word = "correct" if like["teacher's texts"].above(0) else "unverifiable"
    cooler = found.interval("teacher", "entropy", minus="teacher, T = 0.5")
    people = found.interval("people", "entropy", minus="teacher")
    arms = [arm for arm in found.arms if arm != "cut short"]
    return {
        "verdict": word,
        "controls": {"shows": cooler.above(0.2), "shows_not": people.within(-0.2, 0.2)},
        "numbers": {
            f"{name}_{_name(arm)}": f"{found.interval(arm, name).mean:{form}}"
            for name, form in (("disliked", ".2f"), ("entropy", ".2f"), ("distinct", ".0%"))
            for arm in arms
        }
        | {f"gain_{_name(arm)}": each.text("+.2f").replace("-", "−") for arm, each in gain.items()},
    }


def _name(arm):
    """An arm as cards name it: `{A05.3:entropy_own_texts_reverse_KL}`."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in arm).split())
