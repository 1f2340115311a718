"""`mask_tokens(ids, special, pick, act, random_ids, mask_id, share=0.15)`

What BERT reads, and what it is asked for.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

from autograde.exercise import Draft, case
from autograde.exercises.applications.decoder_only.shared import IGNORED, VOCABULARY, token_ids

exercise = Draft(
    "mask_tokens",
    points=3,
    forbid=["transformers"],
    dtypes=(),
    no_gradient="ids are whole numbers",
    fresh=True,
    hints=[
        "First decide who is picked: one bool tensor. It makes the labels at once. Then change the inputs.",
        "picked = (pick < share) & ~special. labels = ids where picked, else -100. The mask goes where picked & "
        "(act < 0.8).",
        "inputs = torch.where(picked & (act < 0.8), mask_id, ids); inputs = torch.where(picked & (act >= 0.8) & (act < "
        "0.9), random_ids, inputs); labels = ids.masked_fill(~picked, -100)",
    ],
)


@exercise.cases
def masking_cases(g):
    def uniform(*shape):
        """Numbers from 0 to 1 that keep clear of 0.8 and 0.9, where rounding could decide."""
        x = torch.rand(shape, generator=g)
        return torch.where(((x - 0.8).abs() < 1e-3) | ((x - 0.9).abs() < 1e-3), x - 0.01, x)

    def one(*lengths, ends=1, label, **share):
        shape = torch.Size(lengths)
        place, rows = torch.arange(shape[-1]), torch.arange(shape[:-1].numel()).view(shape[:-1])[..., None]
        lost = rows % 4 * (0 < 2 * ends < shape[-1] - 4)  # as much more padding, of which no row has what the next has
        special = ((place < ends) | (place >= shape[-1] - ends - lost)).expand(shape)
        ids = token_ids(g, *shape).masked_fill(special, 3)
        pick, act, mask_id = uniform(*shape), uniform(*shape), int(torch.randint(VOCABULARY, 200, (), generator=g))
        return case(ids, special, pick, act, token_ids(g, *shape), mask_id, label=label, **share)

    yield one(40, 60, label="a large batch, half of it picked", share=0.5)
    yield one(24, 16, ends=0, label="the usual share, nothing special")
    yield one(5, 40, ends=9, label="much padding", share=0.4)
    yield one(3, 14, label="everything but special tokens picked", share=1.0)
    yield one(2, 3, 20, label="two batch dimensions", share=0.6)
    yield one(30, label="one row", share=0.7)
    at_edges = one(4, 15, label="numbers that are just share, or just 0.8", share=0.5)
    pick, act = at_edges.args[2:4]
    pick[:2, ::3], act[2:, ::2] = 0.5, 0.8
    pick[2:, ::4] /= 2
    yield at_edges
    none = one(4, 6, label="nothing picked", share=0.0)
    none.args[2][:, 2:4] = torch.tensor([0.0, 0.05])
    yield none
    yield one(2, 5, ends=5, label="only special tokens", share=0.9)
    yield one(1, 1, ends=0, label="one token", share=1.0)


class _Dealt(TorchFunctionMode):
    """Inside, torch's coins fall as the given numbers say, in this thread alone."""

    def __init__(self, numbers, random_ids):
        super().__init__()
        self._numbers, self._random_ids = iter(numbers), random_ids

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.bernoulli:
            return (next(self._numbers) < args[0]).float()
        return self._random_ids if func is torch.randint else func(*args, **(kwargs or {}))


class _Tokenizer:
    """As much of a tokenizer as the collator asks for."""

    mask_token = "[MASK]"

    def __init__(self, mask_id):
        self.mask_id = mask_id

    def __len__(self):
        return VOCABULARY

    def convert_tokens_to_ids(self, token):
        return self.mask_id


@exercise.oracle
def transformers_masking(ids, special, pick, act, random_ids, mask_id, share=0.15):
    """DataCollatorForLanguageModeling. Its coins: picked or not; if so, the mask or not; if not, random or not."""
    from transformers import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(_Tokenizer(mask_id), mlm_probability=share)
    with _Dealt((pick, act, (act - 0.8) / 0.2), random_ids):
        return collator.torch_mask_tokens(ids.clone(), special)


@exercise.law("Special tokens are neither changed nor scored")
def special_is_safe(out, one, call):
    inputs, labels = out
    ids, special = one.args[:2]
    return bool((inputs == ids)[special].all() and (labels == IGNORED)[special].all())


def _picked(one):
    return (one.args[2] < one.kwargs.get("share", 0.15)) & ~one.args[1]


@exercise.law("Labels are the old tokens where picked, -100 elsewhere")
def labels_are_the_old_tokens(out, one, call):
    return torch.equal(out[1], one.args[0].masked_fill(~_picked(one), IGNORED))


@exercise.law("Inputs and labels are int64")
def masked_are_int64(out, one, call):
    return all(x.dtype is torch.int64 for x in out)


@exercise.law("What isn't picked goes in as it was")
def the_rest_stays(out, one, call):
    return bool((out[0] == one.args[0])[~_picked(one)].all())


@exercise.law("Of the picked, about 80 % are masks, 10 % other tokens, 10 % unchanged")
def eighty_ten_ten(out, one, call):
    """Five standard deviations of a fair draw, so that the case's own luck never decides."""
    picked = _picked(one)
    if picked.sum() < 1000:
        return None
    new, old, mask_id = out[0][picked], one.args[0][picked], one.args[5]
    shares = [float(x.float().mean()) for x in (new == mask_id, (new != mask_id) & (new != old), new == old)]
    near = all(abs(share - right) < 0.06 for share, right in zip(shares, (0.8, 0.1, 0.1), strict=True))
    return near or "masks {:.0%}, other tokens {:.0%}, unchanged {:.0%}".format(*shares)


def _masking(
    chosen=lambda pick, special, share: (pick < share) & ~special,
    masks=lambda picked, act: picked & (act < 0.8),
    random=lambda picked, act: picked & (act >= 0.8) & (act < 0.9),
    scored=lambda picked, act: picked,
    nothing=IGNORED,
    of_inputs=False,
):
    """`mask_tokens` with parts exchanged."""

    def mask_tokens(ids, special, pick, act, random_ids, mask_id, share=0.15):
        picked = chosen(pick, special, share)
        inputs = torch.where(masks(picked, act), mask_id, torch.where(random(picked, act), random_ids, ids))
        return inputs, (inputs if of_inputs else ids).masked_fill(~scored(picked, act), nothing)

    return mask_tokens


exercise.mistake(
    "every picked token becomes the mask",
    hint="Only where act < 0.8. The mask never occurs in later use, so the model must learn without it.",
)(_masking(masks=lambda picked, act: picked))

exercise.mistake(
    "picked tokens become the mask or a random token, none stays",
    hint="From act = 0.9 on a picked token stays what it is.",
)(_masking(random=lambda picked, act: picked & (act >= 0.8)))

exercise.mistake(
    "picked tokens become the mask or stay, none is random", hint="Where 0.8 <= act < 0.9 the token becomes random_ids."
)(_masking(random=lambda picked, act: picked & False))

exercise.mistake(
    "a tenth of the picked is random and a tenth stays, the wrong way round",
    hint="0.8 to 0.9 is random, 0.9 and above stays.",
)(_masking(random=lambda picked, act: picked & (act >= 0.9)))

exercise.mistake("the mask is used for 90 % of the picked", hint="The mask: act < 0.8.")(
    _masking(masks=lambda picked, act: picked & (act < 0.9))
)

exercise.mistake(
    "the picked tokens that stay aren't scored",
    hint="They are scored like the others: that is why the model can't trust any token it sees.",
)(_masking(scored=lambda picked, act: picked & (act < 0.9)))

exercise.mistake("only masks are scored", hint="All picked tokens have a label: masked, random and unchanged ones.")(
    _masking(scored=lambda picked, act: picked & (act < 0.8))
)

exercise.mistake("every token is scored", hint="Labels are -100 where a token wasn't picked: the loss skips it.")(
    _masking(scored=lambda picked, act: picked | True)
)

exercise.mistake(
    "the labels hold the tokens after masking",
    hint="The label is what stood there before. Take a copy before you change anything.",
)(_masking(of_inputs=True))

exercise.mistake(
    "labels are 0 where nothing is to be predicted", hint="0 is a token. -100 is what cross_entropy skips."
)(_masking(nothing=0))

exercise.mistake("special tokens are picked, too", hint="Picked means: pick < share, and not special.")(
    _masking(chosen=lambda pick, special, share: pick < share)
)

exercise.mistake(
    "only special tokens can be picked", hint=("special is True for those that must *not* be picked: ~special.")
)(_masking(chosen=lambda pick, special, share: (pick < share) & special))

exercise.mistake("a share of 0.15 is taken, whatever `share` says", hint="Compare with `share`.")(
    _masking(chosen=lambda pick, special, share: (pick < 0.15) & ~special)
)

exercise.mistake("special tokens are scored", hint="Labels are -100 where a token is special: it is never picked.")(
    lambda ids, special, pick, act, random_ids, mask_id, share=0.15: (
        masked(ids, special, pick, act, random_ids, mask_id, share)[0],
        ids.masked_fill(pick >= share, IGNORED),
    )
)

exercise.mistake("inputs and labels are exchanged", hint="(inputs, labels), in this order.")(
    lambda *args, **kwargs: masked(*args, **kwargs)[::-1]
)

exercise.mistake("every row is picked like the first", hint="Each place has a number of its own: pick < share.")(
    _masking(chosen=lambda pick, special, share: ((pick[:1] if pick.dim() > 1 else pick) < share) & ~special)
)

exercise.mistake("ids themselves are handed back where nothing is picked", hint="New tensors, always: ids.clone().")(
    lambda ids, special, pick, act, random_ids, mask_id, share=0.15: (
        (ids if share == 0 else masked(ids, special, pick, act, random_ids, mask_id, share)[0]),
        masked(ids, special, pick, act, random_ids, mask_id, share)[1],
    )
)

exercise.mistake("a number that equals `share` is picked as well", hint="Picked where pick < share, not <=.")(
    _masking(chosen=lambda pick, special, share: (pick <= share) & ~special)
)

exercise.mistake("the mask is used up to and including 0.8", hint="The mask: act < 0.8, not <=.")(
    _masking(masks=lambda picked, act: picked & (act <= 0.8))
)

exercise.mistake("inputs or labels aren't int64", hint="Ids are int64, and cross_entropy asks for no other labels.")(
    lambda *args, **kwargs: tuple(x.int() for x in masked(*args, **kwargs))
)

exercise.mistake("the tokens that should stay are picked, and the others not", hint="Picked where pick < share.")(
    _masking(chosen=lambda pick, special, share: (pick >= share) & ~special)
)

exercise.mistake(
    "tokens that weren't picked are replaced as well", hint="`act` matters only where a token was picked."
)(_masking(masks=lambda picked, act: act < 0.8))

exercise.mistake("unpicked tokens become random", hint="Random tokens, too, only where a token was picked.")(
    _masking(random=lambda picked, act: (act >= 0.8) & (act < 0.9))
)


def _lowest(pick, special, share):
    """The `share` of a row's tokens with the lowest numbers."""
    count = round(share * pick.shape[-1])
    return (pick.argsort(-1).argsort(-1) < count) & ~special


exercise.mistake(
    "exactly the lowest `share` of each row is picked",
    hint="The original BERT code counts so. Here each token decides for itself: pick < share.",
)(_masking(chosen=_lowest))

masked = _masking()


@exercise.mistake(
    "`act` decides what is picked and `pick` what happens",
    hint="pick is for choosing, act for what becomes of the chosen.",
)
def mask_draws_swapped(ids, special, pick, act, random_ids, mask_id, share=0.15):
    return masked(ids, special, act, pick, random_ids, mask_id, share)


@exercise.mistake("the ids are changed in place", hint="Work on a copy: ids.clone().")
def mask_in_place(ids, special, pick, act, random_ids, mask_id, share=0.15):
    inputs, labels = masked(ids, special, pick, act, random_ids, mask_id, share)
    return ids.copy_(inputs), labels


exercise.alternative(masked)


@exercise.alternative
def masked_by_loop(ids, special, pick, act, random_ids, mask_id, share=0.15):
    inputs, labels = ids.clone(memory_format=torch.contiguous_format), torch.full(ids.shape, IGNORED)
    flat = [x.reshape(-1) for x in (special, pick, act, random_ids)]
    new, wanted = inputs.view(-1), labels.view(-1)
    for i, (kept, first, second, other) in enumerate(zip(*(x.tolist() for x in flat), strict=True)):
        if first < share and not kept:
            wanted[i] = new[i]
            if second < 0.9:
                new[i] = mask_id if second < 0.8 else other
    return inputs, labels


@exercise.alternative
def masked_by_index(ids, special, pick, act, random_ids, mask_id, share=0.15):
    """One number a token says what happens to it: 0 nothing, 1 stays, 2 random, 3 the mask."""
    fate = (1 + (act < 0.9).long() + (act < 0.8).long()) * (pick < share) * ~special
    inputs = torch.stack([ids, ids, random_ids, torch.full_like(ids, mask_id)]).gather(0, fate[None])[0]
    return inputs, torch.where(fate > 0, ids, IGNORED)
