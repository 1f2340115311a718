"""Wrong ways to mask, corrupt and shift, as complete implementations, and a few right ones that look different."""

from __future__ import annotations

import torch

IGNORED = -100


# ---- mask_tokens ----------------------------------------------------------------------------------------------------

def _masking(
    chosen=lambda pick, special, share: (pick < share) & ~special,
    masks=lambda picked, act: picked & (act < 0.8),
    random=lambda picked, act: picked & (act >= 0.8) & (act < 0.9),
    scored=lambda picked, act: picked,
    nothing=IGNORED, of_inputs=False,
):
    """`mask_tokens` with parts exchanged."""
    def mask_tokens(ids, special, pick, act, random_ids, mask_id, share=0.15):
        picked = chosen(pick, special, share)
        inputs = torch.where(masks(picked, act), mask_id, torch.where(random(picked, act), random_ids, ids))
        return inputs, (inputs if of_inputs else ids).masked_fill(~scored(picked, act), nothing)
    return mask_tokens


def _lowest(pick, special, share):
    """The `share` of a row's tokens with the lowest numbers."""
    count = round(share * pick.shape[-1])
    return (pick.argsort(-1).argsort(-1) < count) & ~special


masked = _masking()
mask_always = _masking(masks=lambda picked, act: picked)
mask_never_keeps = _masking(random=lambda picked, act: picked & (act >= 0.8))
mask_never_random = _masking(random=lambda picked, act: picked & False)
mask_swapped = _masking(random=lambda picked, act: picked & (act >= 0.9))
mask_ninety = _masking(masks=lambda picked, act: picked & (act < 0.9))
mask_kept_unscored = _masking(scored=lambda picked, act: picked & (act < 0.9))
mask_only_masks_scored = _masking(scored=lambda picked, act: picked & (act < 0.8))
mask_all_scored = _masking(scored=lambda picked, act: picked | True)
mask_labels_of_inputs = _masking(of_inputs=True)
mask_labels_zero = _masking(nothing=0)
mask_specials = _masking(chosen=lambda pick, special, share: pick < share)
mask_only_specials = _masking(chosen=lambda pick, special, share: (pick < share) & special)
mask_fixed_share = _masking(chosen=lambda pick, special, share: (pick < 0.15) & ~special)
mask_inverted = _masking(chosen=lambda pick, special, share: (pick >= share) & ~special)
mask_everywhere = _masking(masks=lambda picked, act: act < 0.8)
mask_random_everywhere = _masking(random=lambda picked, act: (act >= 0.8) & (act < 0.9))
mask_by_rank = _masking(chosen=_lowest)


def mask_draws_swapped(ids, special, pick, act, random_ids, mask_id, share=0.15):
    return masked(ids, special, act, pick, random_ids, mask_id, share)


def mask_in_place(ids, special, pick, act, random_ids, mask_id, share=0.15):
    inputs, labels = masked(ids, special, pick, act, random_ids, mask_id, share)
    return ids.copy_(inputs), labels


def masked_by_index(ids, special, pick, act, random_ids, mask_id, share=0.15):
    """One number a token says what happens to it: 0 nothing, 1 stays, 2 random, 3 the mask."""
    fate = (1 + (act < 0.9).long() + (act < 0.8).long()) * (pick < share) * ~special
    inputs = torch.stack([ids, ids, random_ids, torch.full_like(ids, mask_id)]).gather(0, fate[None])[0]
    return inputs, torch.where(fate > 0, ids, IGNORED)


def masked_by_loop(ids, special, pick, act, random_ids, mask_id, share=0.15):
    inputs, labels = ids.clone(), torch.full_like(ids, IGNORED)
    flat = [x.reshape(-1) for x in (special, pick, act, random_ids)]
    new, wanted = inputs.view(-1), labels.view(-1)
    for i, (kept, first, second, other) in enumerate(zip(*(x.tolist() for x in flat), strict=True)):
        if first < share and not kept:
            wanted[i] = new[i]
            if second < 0.9:
                new[i] = mask_id if second < 0.8 else other
    return inputs, labels


# ---- corrupt_spans --------------------------------------------------------------------------------------------------

def _corrupting(
    step=-1, offset=0, by_token=False, last=1, shown=True, announced=True, behind=False, exchanged=False, whole=False,
    open_start=False, closed_inputs=False,
):
    """`corrupt_spans` with parts exchanged."""
    def corrupt_spans(ids, noise, first_sentinel):
        inputs, parts, before = [], [], open_start
        for token, missing in zip(ids.tolist(), noise.tolist(), strict=True):
            missing = missing != exchanged
            if missing and (by_token or not before):
                parts.append([])
                inputs += [first_sentinel + step * (len(parts) - 1 + offset)] * shown
            if missing and parts:
                parts[-1].append(token)
            elif not missing:
                inputs.append(token)
            before = missing
        marks = [[first_sentinel + step * (k + offset)] for k in range(len(parts) + 1)]
        close = marks[len(parts) - (last == 2 and len(parts) > 0)] if last else []
        told = [part + mark if behind else mark * announced + part for mark, part in zip(marks, parts, strict=False)]
        targets = ids.tolist() if whole else [token for part in told for token in part]
        inputs += close if closed_inputs else []
        return torch.tensor(inputs, dtype=torch.int64), torch.tensor(targets + close, dtype=torch.int64)
    return corrupt_spans


spans = _corrupting()
spans_by_token = _corrupting(by_token=True)
spans_upwards = _corrupting(step=1)
spans_one_sentinel = _corrupting(step=0)
spans_without_last = _corrupting(last=0)
spans_last_again = _corrupting(last=2)
spans_closed_twice = _corrupting(closed_inputs=True)
spans_without_gaps = _corrupting(shown=False)
spans_bare_targets = _corrupting(announced=False)
spans_sentinel_behind = _corrupting(behind=True)
spans_exchanged = _corrupting(exchanged=True)
spans_whole_text = _corrupting(whole=True, last=0)
spans_from_one = _corrupting(offset=1)
spans_open_start = _corrupting(open_start=True)


def spans_reversed(ids, noise, first_sentinel):
    inputs, targets = spans(ids, noise, first_sentinel)
    starts = [i for i, token in enumerate(targets.tolist()) if token > 90] + [len(targets)]
    parts = [targets[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    return inputs, torch.cat([*parts[-2::-1], parts[-1]])


def spans_open_end(ids, noise, first_sentinel):
    """A span is written down when the text goes on after it."""
    inputs, targets, span, sentinel = [], [], [], first_sentinel
    for token, missing in zip(ids.tolist(), noise.tolist(), strict=True):
        if missing:
            span.append(token)
            continue
        if span:
            inputs.append(sentinel)
            targets += [sentinel, *span]
            span, sentinel = [], sentinel - 1
        inputs.append(token)
    return torch.tensor(inputs, dtype=torch.int64), torch.tensor([*targets, sentinel])


def spans_targets_like_t5(ids, noise, first_sentinel):
    """Each half replaces the other's runs by sentinels."""
    inputs, _ = spans(ids, noise, first_sentinel)
    targets, _ = spans(ids, ~noise, first_sentinel)
    return inputs, targets


def spans_by_cumsum(ids, noise, first_sentinel):
    """Without a loop: the rows of two tables, one column a token, and those kept that are wanted."""
    before = torch.nn.functional.pad(noise, (1, 0))[:-1]
    starts = noise & ~before
    sentinels = first_sentinel + 1 - starts.cumsum(0)
    table = torch.stack([sentinels, ids], 1)
    inputs = torch.where(starts, sentinels, ids)[~noise | starts]
    targets = table[torch.stack([starts, noise], 1)]
    return inputs, torch.cat([targets, torch.tensor([first_sentinel]) - starts.sum()])


def spans_by_lists(ids, noise, first_sentinel):
    edges = [i for i in range(1, len(ids)) if noise[i] != noise[i - 1]]
    inputs, targets, k = [], [], 0
    for a, b in zip([0, *edges], [*edges, len(ids)], strict=True):
        if noise[a]:
            mark = torch.tensor([first_sentinel - k])
            inputs, targets, k = [*inputs, mark], [*targets, mark, ids[a:b]], k + 1
        else:
            inputs.append(ids[a:b])
    return torch.cat(inputs), torch.cat([*targets, torch.tensor([first_sentinel - k])])


# ---- shift_labels ---------------------------------------------------------------------------------------------------

def _known(kind):
    if kind not in ("decoder", "encoder-decoder"):
        raise ValueError(kind)


def _left(x, fill):
    return torch.cat([x[:, 1:], torch.full_like(x[:, :1], fill)], 1)


def _right(x, fill):
    return torch.cat([torch.full_like(x[:, :1], fill), x[:, :-1]], 1)


def _scored(ids, real):
    return ids.masked_fill(~real, IGNORED)


def right_decoder(ids, real, start, pad):
    return ids.clone(), _left(_scored(ids, real), IGNORED)


def right_half(ids, real, start, pad):
    return _right(ids.masked_fill(~real, pad), start), _scored(ids, real)


def _shifting(decoder=right_decoder, half=right_half, unknown=None):
    """`shift_labels` with one kind exchanged. Each kind is a function of (ids, real, start, pad)."""
    def shift_labels(ids, real, kind, start, pad):
        if unknown is None:
            _known(kind)
        return (half if kind == "encoder-decoder" else decoder)(ids, real, start, pad)
    return shift_labels


def _labels(make):
    """A decoder with other labels."""
    return _shifting(lambda ids, real, start, pad: (ids.clone(), make(ids, real, pad)))


def _ends_with(ids, labels):
    return torch.cat([labels[:, :-1], ids], 1)


def _reads(make):
    """An encoder-decoder that reads something else."""
    return _shifting(half=lambda ids, real, start, pad: (make(ids, real, start, pad), _scored(ids, real)))


def _by_pad_id(made):
    return lambda ids, real, start, pad: made(ids, ids != pad, start, pad)


def _overwritten(ids, real, start, pad):
    inputs = ids.masked_fill(~real, pad)
    inputs[:, 0] = start
    return inputs


def _longer(ids, real, start, pad):
    return torch.cat([torch.full_like(ids[:, :1], start), ids.masked_fill(~real, pad)], 1)


shifted = _shifting()
shift_none = _labels(lambda ids, real, pad: _scored(ids, real))
shift_backwards = _labels(lambda ids, real, pad: _right(_scored(ids, real), IGNORED))
shift_twice = _labels(lambda ids, real, pad: _left(_left(_scored(ids, real), IGNORED), IGNORED))
shift_rolled = _labels(lambda ids, real, pad: _scored(ids, real).roll(-1, 1))
shift_last_repeats = _labels(lambda ids, real, pad: _ends_with(ids[:, -1:], _left(_scored(ids, real), IGNORED)))
shift_last_pad = _labels(lambda ids, real, pad: _left(_scored(ids, real), pad))
shift_padding_scored = _shifting(
    lambda ids, real, start, pad: (ids.clone(), _left(ids, IGNORED)),
    lambda ids, real, start, pad: (right_half(ids, real, start, pad)[0], ids.clone()),
)
shift_real_unmoved = _labels(lambda ids, real, pad: _left(ids, IGNORED).masked_fill(~real, IGNORED))
shift_by_pad_id = _shifting(_by_pad_id(right_decoder), _by_pad_id(right_half))
shift_decoder_inputs = _shifting(
    lambda ids, real, start, pad: (_right(ids, start), right_decoder(ids, real, start, pad)[1])
)
shift_reads_answer = _reads(lambda ids, real, start, pad: ids.masked_fill(~real, pad))
shift_overwrites = _reads(_overwritten)
shift_both = _shifting(
    half=lambda ids, real, start, pad: (right_half(ids, real, start, pad)[0], _left(_scored(ids, real), IGNORED))
)
shift_reads_ignored = _reads(lambda ids, real, start, pad: _right(_scored(ids, real), start))
shift_padding_read = _reads(lambda ids, real, start, pad: _right(ids, start))
shift_longer = _reads(_longer)
shift_exchanged = _shifting(right_half, right_decoder)
shift_unknown_accepted = _shifting(unknown="accepted")


def shifted_by_loop(ids, real, kind, start, pad):
    _known(kind)
    inputs, labels = ids.clone(), torch.full_like(ids, IGNORED)
    for r in range(len(ids)):
        for i in range(ids.shape[1]):
            if kind == "encoder-decoder":
                inputs[r, i] = start if i == 0 else ids[r, i - 1] if real[r, i - 1] else pad
            place = i + (kind == "decoder")
            if place < ids.shape[1] and real[r, place]:
                labels[r, i] = ids[r, place]
    return inputs, labels


def shifted_by_concat(ids, real, kind, start, pad):
    """A row that is one longer, seen from its two ends."""
    _known(kind)
    if kind == "decoder":
        long = torch.nn.functional.pad(torch.where(real, ids, IGNORED), (0, 1), value=IGNORED)
        return ids, long[:, 1:]
    long = torch.nn.functional.pad(torch.where(real, ids, IGNORED), (1, 0), value=start)
    return torch.where(long == IGNORED, pad, long)[:, :-1], long[:, 1:]
