"""Wrong ways to write greedy decoding, and a few right ones that look different."""

from __future__ import annotations

import torch


def _greedy(
    pick=lambda logits: logits[:, -1].argmax(-1), feed=lambda tokens: tokens, remembers=True, pads=True, stop=torch.all,
    keep=slice(1, None), again=False, raw=False, steps=0, end_shown=True, whole=False,
):
    """`greedy_decode` with parts exchanged."""
    def greedy_decode(encode, decode, source, start, end, pad, max_tokens):
        memory = source if raw else encode(source)
        tokens = torch.full((len(source), 1), start)
        done = torch.full((len(source),), whole and start == end)
        for i in range(max_tokens + steps):
            memory = encode(source) if again and i else memory
            following = pick(decode(feed(tokens), memory))
            following = following.masked_fill(done, pad) if pads else following
            tokens = torch.cat([tokens, following[:, None]], 1)
            done = (tokens == end).any(1) if whole else (following == end) | (done & remembers)
            if stop is not None and stop(done):
                break
        shown = tokens if end_shown else tokens.masked_fill(tokens == end, pad)
        return shown[:, keep]
    return greedy_decode


greedy_decode = _greedy()
greedy_goes_on_after_end = _greedy(pads=False)
greedy_stops_with_the_first = _greedy(stop=torch.any)
greedy_never_stops = _greedy(stop=None)
greedy_forgets_who_ended = _greedy(remembers=False)
greedy_ends_at_start = _greedy(whole=True)
greedy_keeps_start = _greedy(keep=slice(None))
greedy_drops_end = _greedy(end_shown=False)
greedy_first_position = _greedy(pick=lambda logits: logits[:, 0].argmax(-1))
greedy_last_token_only = _greedy(feed=lambda tokens: tokens[:, -1:])
greedy_one_too_few = _greedy(steps=-1)
greedy_encodes_again = _greedy(again=True)
greedy_source_as_memory = _greedy(raw=True)
greedy_least_likely = _greedy(pick=lambda logits: logits[:, -1].argmin(-1))


def greedy_by_buffer(encode, decode, source, start, end, pad, max_tokens):
    """A buffer of full size is fed every time: what lies ahead doesn't matter to a causal decoder."""
    memory = encode(source)
    buffer = torch.full((source.shape[0], max_tokens + 1), pad)
    buffer[:, 0] = start
    for t in range(max_tokens):
        ended = (buffer[:, 1 : t + 1] == end).any(1)
        if t and bool(ended.all()):
            return buffer[:, 1 : t + 1]
        best = decode(buffer, memory).log_softmax(-1)[:, t].topk(1).indices[:, 0]
        buffer[:, t + 1] = torch.where(ended, pad, best)
    return buffer[:, 1:]


def greedy_by_dropping(encode, decode, source, start, end, pad, max_tokens):
    """Rows that have ended leave the batch."""
    memory = encode(source)
    alive, rows = list(range(len(source))), [[start] for _ in source]
    while alive and len(rows[alive[0]]) <= max_tokens:
        logits = decode(torch.tensor([rows[i] for i in alive]), memory[alive])
        for i, token in zip(alive, logits[:, -1].max(-1).indices.tolist(), strict=True):
            rows[i].append(token)
        alive = [i for i in alive if rows[i][-1] != end]
    longest = max(map(len, rows))
    return torch.tensor([row[1:] + [pad] * (longest - len(row)) for row in rows])
