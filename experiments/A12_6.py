"""Does a model that remembers less of its context repeat itself more?

Which heads look things up is found with strings of random tokens; what they do to loops is measured on English that the
model writes itself. Other heads are switched off for comparison, as many as do the same harm to ordinary prose.
"""

import contextlib
import functools

import torch

from experiments import looping
from experiments.looping import habits, less, loaded, openings, over, passages, percent, write
from labkit.experiment import Experiment, interval

CUT, ROUND, TIMES = 27, 40, 8
SENTENCES = (
    "The old sailor looked at the harbour and said nothing about the storm.",
    "Solar panels turn the light of the sun into electric power.",
    "My sister keeps three cats and a parrot in her kitchen.",
    "The train from the north arrives at half past nine.",
    "Nobody in the village had ever seen a camel before.",
    "He paid for the bread and counted his coins twice.",
)

experiment = Experiment(
    claim="A12.6",
    question="Does a model that remembers less of its context repeat itself more?",
    arms={
        "the whole model": {},
        "no induction heads": {"cut": "induction"},
        "no other heads, set 1": {"cut": 0},
        "no other heads, set 2": {"cut": 1},
        "people": {"people": True},
        "no induction heads, cut short": {"cut": "induction", "recall_alone": True},
    },
    seeds=(0,),
    shows="the whole model",
    shows_not="people",
    live=("no induction heads, cut short", 0),
    within={"recall": 0.05, "climb": 0.1},
)


@experiment.measure
def measure(seed, cut=None, people=False, recall_alone=False):
    """What a damaged model recalls, how well it reads prose, and how it writes."""
    if people:
        return habits(passages(looping.STEPS))
    with without(heads_of(cut)):
        found = {"recall": recall(), "climb": climb()}
        if recall_alone:
            return found
        texts = looping.greedy_texts() if cut is None else write(openings(), looping.greedy, looping.STEPS)
        return found | {"prose": prose(24), "heads": len(heads_of(cut))} | habits(*texts)


def heads_of(cut) -> list[tuple[int, int]]:
    """The heads, as (layer, head), that an arm does without."""
    if cut is None:
        return []
    return ranked()[:CUT] if cut == "induction" else others()[cut]


@functools.cache
def ranked() -> list[tuple[int, int]]:
    """All heads, those first that attend most to what came next the last time, in random tokens said twice."""
    model, tokenizer = loaded()
    heads, chance = model.config.num_attention_heads, torch.Generator().manual_seed(100)
    rounds = torch.randint(1_000, 40_000, (4, ROUND), generator=chance).repeat(1, 2)
    ids = torch.cat([torch.full((4, 1), tokenizer.bos_token_id), rounds], 1)
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fast kernels don't keep the weights
    try:
        with torch.inference_mode():
            weights = torch.stack(model.model(ids, output_attentions=True).attentions)
    finally:
        model.set_attn_implementation(usual)
    second = torch.arange(ROUND + 1, 2 * ROUND)
    scores = weights[..., second, second - ROUND + 1].mean((1, 3))
    return [divmod(int(i), heads) for i in scores.flatten().argsort(descending=True)]


@functools.cache
def others() -> list[list[tuple[int, int]]]:
    """Two sets of heads from the lower half of the ranking: those of twelve drawn sets that harm prose most equally."""
    low = ranked()[len(ranked()) // 2 :]
    chance = torch.Generator().manual_seed(7)
    drawn = [
        [low[i] for i in torch.randperm(len(low), generator=chance)[:count].tolist()]
        for count in (CUT, 36, 45, 54)
        for _ in range(3)
    ]
    with without(ranked()[:CUT]):
        wanted = sum(prose(8))
    harms = []
    for heads in drawn:
        with without(heads):
            harms.append(abs(sum(prose(8)) - wanted))
    return [drawn[i] for i in sorted(range(len(drawn)), key=harms.__getitem__)[:2]]


@contextlib.contextmanager
def without(heads):
    """Inside, these heads say nothing."""
    model, _ = loaded()
    count, hooks = model.config.num_attention_heads, []
    for layer in {layer for layer, _ in heads}:
        silent = [head for its_layer, head in heads if its_layer == layer]

        def mute(module, given, silent=silent):
            spoken = given[0].unflatten(-1, (count, -1)).clone()
            spoken[..., silent, :] = 0
            return (spoken.flatten(-2),)

        hooks.append(model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(mute))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def log_probs(ids: torch.Tensor) -> torch.Tensor:
    """Of every token but the first: [rows, length - 1]. Row by row: a token has 49,152 scores."""
    model, _ = loaded()
    rows = zip(model.model(ids).last_hidden_state[:, :-1], ids[:, 1:, None], strict=True)
    return torch.stack([model.lm_head(states).log_softmax(-1).gather(-1, said)[:, 0] for states, said in rows])


def prose(count: int) -> list[float]:
    """Nats a token at passages that people wrote, one number a passage."""
    return (-log_probs(passages(64)[-count:]).mean(1)).tolist()


def recall() -> list[float]:
    """The mean probability of a random string's tokens when it is said again, one number a string."""
    _, tokenizer = loaded()
    chance = torch.Generator().manual_seed(200)  # other strings than those that ranked the heads
    strings = torch.randint(1_000, 40_000, (8, 24), generator=chance).repeat(1, 2)
    ids = torch.cat([torch.full((8, 1), tokenizer.bos_token_id), strings], 1)
    return log_probs(ids).exp()[:, 25:].mean(1).tolist()


def climb() -> list[list[float]]:
    """The mean probability of a sentence's tokens at its first, second, … time, for each sentence."""
    _, tokenizer = loaded()
    found = []
    for text in SENTENCES:
        tokens = tokenizer(" " + text).input_ids
        ids = torch.tensor([[tokenizer.bos_token_id, *tokens * TIMES]])
        found.append(log_probs(ids).exp().reshape(TIMES, -1).mean(1).tolist())
    return found


@experiment.conclude
def conclude(found):
    whole, cut, sets = "the whole model", "no induction heads", ("no other heads, set 1", "no other heads, set 2")
    # Above 0: with less memory there are more loops than with another damage of the same size.
    more = [less(found, cut, other, "repeated") for other in sets]
    than_whole = less(found, cut, whole, "repeated")
    said = {arm: interval(over(found, arm, "recall")) for arm in (whole, cut, *sets)}
    if all(each.below(0) for each in more) and than_whole.below(0):
        word = "wrong"
    elif all(each.above(0) for each in more) and than_whole.above(0):
        word = "correct"
    else:
        word = "unverifiable"
    name = {arm: arm.replace(" ", "_").replace(",", "") for arm in found.arms}
    rises = interval([each[-1] - each[0] for each in over(found, whole, "climb")])
    harm = {arm: less(found, arm, whole, "prose") for arm in (cut, *sets)}
    return {
        "verdict": word,
        "controls": looping.controls(found, whole),
        "numbers": {
            **{f"rate_{key.replace(',', '')}": text for key, text in looping.told(found).items()},
            **{f"recall_{name[arm]}": f"{100 * each.mean:.0f} %" for arm, each in said.items()},
            **{f"harm_{name[arm]}": f"{each.mean:.2f}" for arm, each in harm.items()},
            "more_than_set_1": percent(more[0]),
            "more_than_set_2": percent(more[1]),
            "more_than_whole": percent(than_whole),
            "climb": percent(rises),
        },
    }
