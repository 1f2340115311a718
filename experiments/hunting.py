"""What the experiments on agents share: a small world of places and signs, a model that looks around in it, and loops.

Every place has a sign to the next place, or a thing. A task names the first place; the answer is the thing at the end
of the way. The model is SmolLM2-135M-Instruct, shown five worked examples; it writes actions, and a program that is
the same for all arms reads them, looks, and writes back what it sees. Many tasks go through the model at once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from labkit import chat_model

PLACES = [
    "church",
    "mill",
    "well",
    "bridge",
    "tower",
    "barn",
    "market",
    "harbour",
    "castle",
    "forest",
    "garden",
    "library",
]
THINGS = (
    "a golden cup",
    "a silver ring",
    "an old map",
    "a blue stone",
    "a wooden flute",
    "a red feather",
    "a glass bead",
    "an iron key",
    "a paper boat",
    "a white shell",
)
TASKS = 12  # a third of them with each number of looks
LOOKS = (1, 2, 3)
# What the examples show: ways of none, one and two signs, through places and to things that no task has.
SHOWN = (
    (("school", "lake"), "a brass bell"),
    (("inn",), "a green hat"),
    (("port", "hill", "farm"), "a tin box"),
    (("cave",), "a clay pot"),
    (("park", "shop"), "a soft doll"),
)
SYSTEM = "Look at places until you find a thing. A sign sends you to the next place."
_PLACE = re.compile(r'"place": "([^"]*)"')


@dataclass(frozen=True)
class Task:
    """A way through the world: its places in order, the thing at its end, and what every place shows."""

    way: tuple[str, ...]
    thing: str
    world: dict[str, str]
    says_length: bool

    def question(self) -> str:
        return asked(self.way, self.says_length)

    def look(self, place: str) -> str:
        """The tool: what is seen at a place. It also takes what it gave before, "sign: mill"."""
        return self.world.get(place.removeprefix("sign: "), "error: no such place")


def asked(way: Sequence[str], says_length: bool) -> str:
    """The question about a way. It can say how many signs there are, so that a plan could be made beforehand."""
    signs = ("no sign", "one sign", "two signs", "three signs")[len(way) - 1]
    return f"Start at the {way[0]}{f' and follow {signs}' if says_length else ''}. What do you find?"


def tasks(seed: int, says_length: bool = False, count: int = TASKS) -> list[Task]:
    """Tasks that need one, two and three looks, in turn."""
    draw, found = random.Random(seed), []
    for i in range(count):
        way = tuple(draw.sample(PLACES, LOOKS[i % len(LOOKS)]))
        world = {place: f"sign: {after}" for place, after in zip(way, way[1:], strict=False)}
        world[way[-1]] = f"thing: {draw.choice(THINGS)}"
        world |= {place: f"thing: {draw.choice(THINGS)}" for place in PLACES if place not in world}
        found.append(Task(way, world[way[-1]].removeprefix("thing: "), world, says_length))
    return found


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def action(place: str) -> str:
    return f'Action: look\nAction Input: {{"place": "{place}"}}'


def seen(way: Sequence[str], thing: str) -> list[str]:
    """What one sees on the way."""
    return [*(f"sign: {place}" for place in way[1:]), f"thing: {thing}"]


def shown_steps(says_length: bool) -> list[dict[str, str]]:
    """The examples for a loop: each action after the observation before it."""
    told = [{"role": "system", "content": SYSTEM}]
    for way, thing in SHOWN:
        told.append(user(f"Question: {asked(way, says_length)}"))
        for place, sight in zip(way, seen(way, thing), strict=True):
            told += [assistant(action(place)), user(f"Observation: {sight}")]
        told.append(assistant(f"Final Answer: {thing}"))
    return told


def shown_plans(says_length: bool) -> list[dict[str, str]]:
    """The examples for a plan: all looks at once, $1 for what the first one gives; the results; then the answer."""
    told = [{"role": "system", "content": SYSTEM}]
    for way, thing in SHOWN:
        plan = [way[0], *(f"${i}" for i in range(1, len(way)))]
        told += [user(f"Question: {asked(way, says_length)}"), assistant(written_plan(plan))]
        told += [user(results_of(seen(way, thing))), assistant(f"Final Answer: {thing}")]
    return told


def written_plan(places: Sequence[str]) -> str:
    return json.dumps([{"place": place} for place in places])


def results_of(sights: Sequence[str]) -> str:
    return "\n".join(f"${i} = {sight}" for i, sight in enumerate(sights, 1))


@functools.cache
def model():
    """The model on this machine, whatever the surroundings say."""
    return chat_model(local=True)


@dataclass
class Run:
    """How one task went."""

    answer: str | None = None
    asked: int = 0
    looks: int = 0
    tokens: int = 0


def _asked(chats: Sequence[list], runs: Sequence[Run], most: int) -> list[str]:
    """What the model writes, one text a chat; what it costs is noted."""
    replies = model().many(chats, max_new_tokens=most, stop=["\nObservation:"])
    for reply, run in zip(replies, runs, strict=True):
        run.asked += 1
        run.tokens += reply.prompt_tokens + reply.completion_tokens
    return [reply.text.strip() for reply in replies]


def _final(text: str) -> str | None:
    return text.partition("Final Answer:")[2].strip() if "Final Answer:" in text else None


def loop(some: Sequence[Task], steps: int = 5) -> list[Run]:
    """Act, observe, act again: the model decides after each observation."""
    shown, runs = shown_steps(some[0].says_length), [Run() for _ in some]
    chats = [[*shown, user(f"Question: {task.question()}")] for task in some]
    for _ in range(steps):
        live = [i for i, run in enumerate(runs) if run.answer is None]
        if not live:
            break
        for i, text in zip(live, _asked([chats[i] for i in live], [runs[i] for i in live], 22), strict=True):
            chats[i].append(assistant(text))
            runs[i].answer = _final(text)
            if runs[i].answer is None:
                found = _PLACE.search(text)
                runs[i].looks += bool(found)
                sight = some[i].look(found[1]) if found else "error: no action"
                chats[i].append(user(f"Observation: {sight}"))
    return runs


def plan(some: Sequence[Task]) -> list[Run]:
    """Plan all looks first, carry them out, then answer: the model decides once."""
    shown, runs = shown_plans(some[0].says_length), [Run() for _ in some]
    chats = [[*shown, user(f"Question: {task.question()}")] for task in some]
    for i, text in enumerate(_asked(chats, runs, 40)):
        sights: list[str] = []
        for place in _PLACE.findall(text)[:5]:
            number = re.fullmatch(r"\$(\d+)", place)
            if number and not 1 <= int(number[1]) <= len(sights):
                sights.append(f"error: no result {place}")
            else:
                sights.append(some[i].look(sights[int(number[1]) - 1] if number else place))
        runs[i].looks = len(sights)
        chats[i] += [assistant(text), user(results_of(sights))]
    for run, text in zip(runs, _asked(chats, runs, 12), strict=True):
        run.answer = _final(text)
    return runs


def workflow(some: Sequence[Task], looks: int) -> list[Run]:
    """A program looks so many times, the same for each task, and the model only writes the answer."""
    shown, runs = shown_plans(some[0].says_length), [Run() for _ in some]
    chats = []
    for task, run in zip(some, runs, strict=True):
        sights = [task.look(task.way[0])]
        for _ in range(looks - 1):
            sights.append(task.look(sights[-1]))
        run.looks = looks
        planned = written_plan([task.way[0], *(f"${i}" for i in range(1, looks))])
        question = user(f"Question: {task.question()}")
        chats.append([*shown, question, assistant(planned), user(results_of(sights))])
    for run, text in zip(runs, _asked(chats, runs, 12), strict=True):
        run.answer = _final(text)
    return runs


def unaided(some: Sequence[Task]) -> list[Run]:
    """No tool: the model can only guess."""
    shown, runs = [{"role": "system", "content": SYSTEM}], [Run() for _ in some]
    for way, thing in SHOWN:
        shown += [user(f"Question: {asked(way, some[0].says_length)}"), assistant(f"Final Answer: {thing}")]
    chats = [[*shown, user(f"Question: {task.question()}")] for task in some]
    for run, text in zip(runs, _asked(chats, runs, 12), strict=True):
        run.answer = _final(text)
    return runs


def scored(some: Sequence[Task], runs: Sequence[Run]) -> dict[str, float]:
    """Per cent of the tasks that were solved, of all and by the looks they need, and the mean costs of one."""
    n, right = len(some), [run.answer == task.thing for task, run in zip(some, runs, strict=True)]
    by_looks = {f"solved_{k}": [ok for ok, task in zip(right, some, strict=True) if len(task.way) == k] for k in LOOKS}
    return {
        "solved": 100 * sum(right) / n,
        **{name: 100 * sum(found) / len(found) for name, found in by_looks.items()},
        "asked": sum(run.asked for run in runs) / n,
        "looks": sum(run.looks for run in runs) / n,
        "tokens": sum(run.tokens for run in runs) / n,
    }


@contextlib.contextmanager
def weakened(noise: float, seed: int) -> Iterator[None]:
    """The same model with noise in its matrices, as a share of each one's own spread; afterwards as before."""
    llm, draw = model().model, torch.Generator().manual_seed(seed)
    kept = {}
    try:
        with torch.no_grad():
            for name, weight in llm.named_parameters():
                if noise and weight.dim() == 2 and "embed" not in name:
                    kept[name] = weight.detach().clone()
                    spread = weight.float().std()
                    weight += (noise * spread * torch.randn(weight.shape, generator=draw)).to(weight.dtype)
        yield
    finally:
        with torch.no_grad():
            for name, weight in llm.named_parameters():
                if name in kept:
                    weight.copy_(kept[name])
