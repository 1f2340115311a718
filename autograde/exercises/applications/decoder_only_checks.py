"""How mask_tokens, corrupt_spans and shift_labels are judged: oracles, cases and laws.

Chance comes in from outside, as tensors of uniform numbers, so that there is one right answer. Two of the oracles are
transformers' own: its collator for masked language modelling, whose coins are dealt from those numbers, and its loss
for causal models, whose gradient tells on which token each position is scored.
"""

from __future__ import annotations

import itertools

import torch
from torch.overrides import TorchFunctionMode
from transformers import DataCollatorForLanguageModeling
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.models.bart.modeling_bart import shift_tokens_right

from autograde.exercise import case

IGNORED, VOCABULARY = -100, 100
TOP = 90  # text has ids below it, sentinels above


def _ids(g, *shape):
    return torch.randint(10, TOP, shape, generator=g)


# ---- mask_tokens ----------------------------------------------------------------------------------------------------

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


def transformers_masking(ids, special, pick, act, random_ids, mask_id, share=0.15):
    """DataCollatorForLanguageModeling. Its coins: picked or not; if so, the mask or not; if not, random or not."""
    collator = DataCollatorForLanguageModeling(_Tokenizer(mask_id), mlm_probability=share)
    with _Dealt((pick, act, (act - 0.8) / 0.2), random_ids):
        return collator.torch_mask_tokens(ids.clone(), special)


def masking_cases(g):
    def uniform(*shape):
        """Numbers from 0 to 1 that keep clear of 0.8 and 0.9, where rounding could decide."""
        x = torch.rand(shape, generator=g)
        return torch.where(((x - 0.8).abs() < 1e-3) | ((x - 0.9).abs() < 1e-3), x - 0.01, x)

    def one(*shape, ends=1, label, **share):
        place = torch.arange(shape[-1])
        special = ((place < ends) | (place >= shape[-1] - ends)).expand(shape)
        ids = _ids(g, *shape).masked_fill(special, 3)
        return case(ids, special, uniform(*shape), uniform(*shape), _ids(g, *shape), 99, label=label, **share)

    yield one(40, 60, label="a large batch, half of it picked", share=0.5)
    yield one(24, 16, ends=0, label="the usual share, nothing special")
    yield one(5, 40, ends=9, label="much padding", share=0.4)
    yield one(3, 14, label="everything but special tokens picked", share=1.0)
    yield one(2, 3, 20, label="two batch dimensions", share=0.6)
    yield one(30, label="one row", share=0.7)
    yield one(4, 6, label="nothing picked", share=0.0)
    yield one(2, 5, ends=5, label="only special tokens", share=0.9)
    yield one(1, 1, ends=0, label="one token", share=1.0)


def special_is_safe(out, one, call):
    inputs, labels = out
    ids, special = one.args[:2]
    return bool((inputs == ids)[special].all() and (labels == IGNORED)[special].all())


def _picked(one):
    return (one.args[2] < one.kwargs.get("share", 0.15)) & ~one.args[1]


def labels_are_the_old_tokens(out, one, call):
    return torch.equal(out[1], one.args[0].masked_fill(~_picked(one), IGNORED))


def the_rest_stays(out, one, call):
    return bool((out[0] == one.args[0])[~_picked(one)].all())


def eighty_ten_ten(out, one, call):
    """Five standard deviations of a fair draw, so that the case's own luck never decides."""
    picked = _picked(one)
    if picked.sum() < 1000:
        return None
    new, old, mask_id = out[0][picked], one.args[0][picked], one.args[5]
    shares = [float(x.float().mean()) for x in (new == mask_id, (new != mask_id) & (new != old), new == old)]
    near = all(abs(share - right) < 0.06 for share, right in zip(shares, (0.8, 0.1, 0.1), strict=True))
    return near or "masks {:.0%}, other tokens {:.0%}, unchanged {:.0%}".format(*shares)


# ---- corrupt_spans --------------------------------------------------------------------------------------------------

def spans_by_grouping(ids, noise, first_sentinel):
    """T5's span corruption as in figure 2 of the paper, by itertools.groupby."""
    inputs, targets, sentinel = [], [], first_sentinel
    for missing, group in itertools.groupby(zip(ids.tolist(), noise.tolist(), strict=True), key=lambda pair: pair[1]):
        tokens = [token for token, _ in group]
        if missing:
            inputs.append(sentinel)
            targets += [sentinel, *tokens]
            sentinel -= 1
        else:
            inputs += tokens
    return torch.tensor(inputs), torch.tensor([*targets, sentinel])


def span_cases(g):
    def first():
        return int(torch.randint(130, 32_100, (), generator=g))

    def one(marks, label):
        noise = torch.tensor([mark == "#" for mark in marks])
        return case(_ids(g, len(noise)), noise, first(), label=label)

    yield one("..##.#...", "two spans inside")
    yield one("##..#.###.", "noise at the beginning")
    yield one(".#...####", "noise at the end")
    yield one("#.#.#", "noise at both ends, single tokens")
    yield one(".....", "no noise")
    yield one("####", "nothing but noise")
    yield one("#", "one token, missing")
    yield one(".", "one token, kept")
    for n, share in ((24, 0.3), (31, 0.6)):
        yield case(_ids(g, n), torch.rand(n, generator=g) < share, first(), label=f"{n} tokens, drawn by chance")


def _spans(noise):
    return int((noise & ~torch.cat([noise.new_zeros(1), noise[:-1]])).sum())


def gaps_can_be_filled(out, one, call):
    ids, _, first = one.args
    inputs, targets = (x.tolist() for x in out)
    parts, current = {}, None
    for token in targets:
        if token > TOP:
            current = parts.setdefault(token, [])
        elif current is None:
            return "the targets don't begin with a sentinel"
        else:
            current.append(token)
    filled = itertools.chain.from_iterable(parts.get(token, []) if token > TOP else [token] for token in inputs)
    return list(filled) == ids.tolist()


def lengths_add_up(out, one, call):
    ids, noise, _ = one.args
    return len(out[0]) + len(out[1]) == len(ids) + 2 * _spans(noise) + 1


def sentinels_count_down(out, one, call):
    count, first = _spans(one.args[1]), one.args[2]
    inputs, targets = (x[x > TOP].tolist() for x in out)
    wanted = list(range(first, first - count - 1, -1))
    return (inputs, targets) == (wanted[:count], wanted)


def spans_are_int64(out, one, call):
    return all(x.dtype is torch.int64 and x.dim() == 1 for x in out) or "not two int64 tensors of one dimension"


# ---- shift_labels ---------------------------------------------------------------------------------------------------

def shift_or_refusal(shift_labels, ids, real, kind, start, pad):
    """The two tensors; for an unknown kind the name of the error that is raised, or that there was none."""
    known = kind in ("decoder", "encoder-decoder")
    try:
        made = shift_labels(ids, real, kind, start, pad)
    except NotImplementedError:
        raise
    except Exception as error:
        if known:
            raise
        return type(error).__name__
    return made if known else "no error"


def transformers_shift(ids, real, kind, start, pad):
    """What transformers' own loss scores each position on, read off its gradient; BART's shift for what is read."""
    labels = ids.masked_fill(~real, IGNORED)
    if kind == "encoder-decoder":
        return shift_tokens_right(labels, pad, start), labels
    if kind != "decoder":
        return "ValueError"
    with torch.enable_grad():
        logits = torch.zeros(*ids.shape, VOCABULARY, requires_grad=True)
        ForCausalLMLoss(logits, labels, VOCABULARY, num_items_in_batch=1).backward()
    steepest = logits.grad.min(-1)  # softmax - one-hot is negative at the label alone, and 0 where nothing is scored
    return ids.clone(), steepest.indices.masked_fill(steepest.values >= 0, IGNORED)


def shift_cases(g):
    def one(kind, lengths, n, label, side="right", under=0):
        """`under` is what stands under the padding: the pad id, or something else."""
        place, lengths = torch.arange(n), torch.tensor(lengths)[:, None]
        real = place < lengths if side == "right" else place >= n - lengths
        ids = _ids(g, *real.shape)
        ids[:, n // 2] = 0  # the id of the padding as a real token: an end mark inside
        return case(ids.masked_fill(~real, under), real, kind, 2, 0, label=label)

    for kind in ("decoder", "encoder-decoder"):
        yield one(kind, [6], 6, f"{kind}, one row without padding")
        yield one(kind, [7, 4, 6], 7, f"{kind}, padding on the right")
        yield one(kind, [3, 8, 5], 8, f"{kind}, padding on the left", side="left")
        yield one(kind, [5, 2], 5, f"{kind}, other ids under the padding", under=55)
        yield one(kind, [1, 1], 1, f"{kind}, one token")
        yield one(kind, [1, 5], 5, f"{kind}, a row of one token")
    yield one("encoder", [4, 3], 4, "an unknown kind")


def _shifted(one):
    return one.args[2] in ("decoder", "encoder-decoder")


def every_token_counts(out, one, call):
    if not _shifted(one):
        return None
    ids, real, kind = one.args[:3]
    wanted = [row[keep].tolist() for row, keep in zip(ids, real, strict=True)]
    if kind == "decoder":
        wanted = [row[keep].tolist() for row, keep in zip(ids[:, 1:], real[:, 1:], strict=True)]
    return [row[row != IGNORED].tolist() for row in out[1]] == wanted


def next_reads_label(out, one, call):
    if not _shifted(one):
        return None
    inputs, labels = out
    scored = labels[:, :-1] != IGNORED
    return bool((inputs[:, 1:] == labels[:, :-1])[scored].all()) and inputs.shape == labels.shape


def last_is_not_read(out, one, call):
    ids, _, kind, start, _ = one.args
    if kind != "encoder-decoder":
        return None
    other = ids.clone()
    other[:, -1] += 1
    if not bool((out[0][:, 0] == start).all()):
        return "the inputs don't begin with the start token"
    return torch.equal(call(other, *one.args[1:])[0], out[0])


def kind_is_checked(out, one, call):
    return None if _shifted(one) else out == "ValueError"
