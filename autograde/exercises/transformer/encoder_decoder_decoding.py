"""What greedy_decode of 01_transformer/02_encoder_decoder is judged by: a scripted model, cases and laws."""

from __future__ import annotations

import torch

from autograde.exercise import case


def decoding_probe(greedy_decode, source, answers, noise, start, end, pad, max_tokens):
    """Let `greedy_decode` talk to a model that follows a script.

    The model says answers[r, i] after the start token and the first i tokens of row r's answer, and noise after any
    other prefix. The first token of a source row says which r it is. Gives the result and how often it was asked.
    """
    import torch

    asked = {"encode": 0, "decode": 0}

    def encode(source):
        asked["encode"] += 1
        return 3.0 * source + 1

    def decode(tokens, memory):
        asked["decode"] += 1
        row = ((memory[:, 0] - 1) / 3).round().long().clamp(0, len(answers) - 1)
        script, m = answers[row], tokens.shape[1]
        if m > script.shape[1]:
            raise ValueError(f"decode() was given {m} tokens a row, more than the start token and max_tokens")
        prefix = torch.cat([torch.full_like(script[:, :1], start), script], 1)[:, :m]
        follows = ((tokens == prefix).cumprod(1) * (memory[:, :1] == 3 * row[:, None] + 1)).bool()
        logits = noise[row, :m].clone()
        best = logits.amax(-1) + 2.0
        return torch.where(
            follows[..., None] & (torch.arange(noise.shape[-1]) == script[:, :m, None]), best[..., None], logits
        )

    tokens = greedy_decode(encode, decode, source, start, end, pad, max_tokens)
    return {"tokens": tokens, "calls of encode": asked["encode"], "calls of decode": asked["decode"]}


def scripted(source, answers, noise, start, end, pad, max_tokens):
    """What the script says, cut after `end` and filled up with `pad`."""
    rows = []
    for r in source[:, 0].tolist():
        row = answers[r, :max_tokens].tolist()
        rows.append(row[: row.index(end) + 1] if end in row else row)
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return {"tokens": tokens, "calls of encode": 1, "calls of decode": longest}


def _dialogue(g, lengths, max_tokens, ids, vocab=12, **options):
    """A case: row r's answer has lengths[r] tokens, the last of them `end`; start, end and pad are `ids`."""
    words = torch.tensor([i for i in range(vocab) if i not in ids])
    length, rows = max_tokens + 3, len(lengths)
    answers = words[torch.randint(0, len(words), (rows, length), generator=g)]
    for row, n in zip(answers, lengths, strict=True):
        if n <= length:
            row[n - 1] = ids[1]
    source = torch.randint(0, 9, (rows, 4), generator=g)
    source[:, 0] = torch.randperm(rows, generator=g)
    noise = 3 * torch.randn(rows, length, vocab, generator=g)
    noise[..., list(ids)] -= 30  # a wrong prefix neither ends nor starts an answer
    return case(source, answers, noise, *ids, max_tokens, **options)


def decoding_cases(g):
    yield _dialogue(g, [5], 9, (1, 2, 0), label="one row")
    yield _dialogue(g, [3, 6, 4], 9, (1, 2, 0), label="three rows of different lengths")
    yield _dialogue(g, [2, 7, 5, 99], 6, (1, 2, 0), label="some rows never end")
    yield _dialogue(g, [99, 99], 4, (0, 1, 2), label="no row ends")
    yield _dialogue(g, [1, 4], 8, (7, 3, 9), label="one row ends at once, other special tokens")
    yield _dialogue(g, [1, 1], 5, (4, 0, 1), label="all rows end at once")
    yield _dialogue(g, [5, 3, 2], 5, (2, 0, 11), label="the longest row ends with the last token allowed")
    yield _dialogue(g, [2, 1, 99], 1, (1, 2, 0), label="one token only")
    yield _dialogue(g, [2, 5, 3], 7, (3, 3, 0), label="start and end are the same token")
    yield _dialogue(g, [4, 2], 6, (1, 2, 2), label="end and pad are the same token")
    yield _dialogue(g, [3, 8, 2, 6], 10, (11, 10, 5), vocab=20, label="a larger vocabulary")


def encodes_once(out, one, call):
    return out["calls of encode"] == 1 or f"encode() was called {out['calls of encode']} times"


def stops_in_time(out, one, call):
    needed = scripted(*one.args)["tokens"].shape[1]
    calls = out["calls of decode"]
    return calls == needed or f"decode() was called {calls} times where {needed} tokens were needed"


def padding_after_end(out, one, call):
    end, pad = one.args[4], one.args[5]
    ended = (out["tokens"] == end).cumsum(1) - (out["tokens"] == end).long() > 0
    return bool((out["tokens"][ended] == pad).all())


def alone_as_in_company(out, one, call):
    """Each row by itself gives the same tokens."""
    source, *rest = one.args
    pad = one.args[5]
    for i in range(len(source)):
        alone, row = call(source[i : i + 1], *rest)["tokens"][0], out["tokens"][i]
        if row[: len(alone)].tolist() != alone.tolist() or bool((row[len(alone) :] != pad).any()):
            return f"row {i} comes out differently when it is decoded alone"
    return True
