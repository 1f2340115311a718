"""`greedy_decode(encode, decode, source, start, end, pad, max_tokens)`

Write an answer to each source, taking the likeliest next token every time.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case

exercise = Draft(
    "greedy_decode",
    points=4,
    no_gradient="the likeliest token has no gradient",
    hints=[
        "Encode once. Then a loop: ask the decoder, take the likeliest next token of each row, append it.",
        "tokens starts as a column of `start`. In each step logits[:, -1].argmax(-1) gives one token a row. Rows that "
        "have ended get `pad`: keep a bool tensor `done`.",
        "following = decode(tokens, memory)[:, -1].argmax(-1).masked_fill(done, pad); append it with torch.cat; "
        "done |= following == end; stop when done.all(); return tokens[:, 1:].",
    ],
)


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


@exercise.cases
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
    yield _dialogue(g, [17, 2, 45, 9], 50, (1, 2, 0), vocab=90, label="a long answer")


@exercise.oracle
def scripted(source, answers, noise, start, end, pad, max_tokens):
    """What the script says, cut after `end` and filled up with `pad`."""
    rows = []
    for r in source[:, 0].tolist():
        row = answers[r, :max_tokens].tolist()
        rows.append(row[: row.index(end) + 1] if end in row else row)
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return {"tokens": tokens, "calls of encode": 1, "calls of decode": longest}


@exercise.probe
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


@exercise.law("Encodes the source once")
def encodes_once(out, one, call):
    return out["calls of encode"] == 1 or f"encode() was called {out['calls of encode']} times"


@exercise.law("Asks the decoder once for each token, and stops when every row has ended")
def stops_in_time(out, one, call):
    needed = scripted(*one.args)["tokens"].shape[1]
    calls = out["calls of decode"]
    return calls == needed or f"decode() was called {calls} times where {needed} tokens were needed"


@exercise.law("After its end a row holds padding only")
def padding_after_end(out, one, call):
    end, pad = one.args[4], one.args[5]
    ended = (out["tokens"] == end).cumsum(1) - (out["tokens"] == end).long() > 0
    return bool((out["tokens"][ended] == pad).all())


@exercise.law("The tokens are int64")
def tokens_are_int64(out, one, call):
    return out["tokens"].dtype is torch.int64 or f"int64 is asked for, and {out['tokens'].dtype} came out"


@exercise.law("A row comes out as if it were alone")
def alone_as_in_company(out, one, call):
    """Each row by itself gives the same tokens."""
    source, *rest = one.args
    pad = one.args[5]
    for i in range(len(source)):
        alone, row = call(source[i : i + 1], *rest)["tokens"][0], out["tokens"][i]
        if row[: len(alone)].tolist() != alone.tolist() or bool((row[len(alone) :] != pad).any()):
            return f"row {i} comes out differently when it is decoded alone"
    return True


def _greedy(
    pick=lambda logits: logits[:, -1].argmax(-1),
    feed=lambda tokens: tokens,
    remembers=True,
    pads=True,
    stop=torch.all,
    keep=slice(1, None),
    again=False,
    raw=False,
    steps=0,
    end_shown=True,
    whole=False,
    ends=False,
):
    """`greedy_decode` with parts exchanged."""

    def greedy_decode(encode, decode, source, start, end, pad, max_tokens):
        memory = source if raw else encode(source)
        tokens = torch.full((len(source), 1), start)
        done = torch.full((len(source),), whole and start == end)
        for i in range(max_tokens + steps):
            memory = encode(source) if again and i else memory
            following = pick(decode(feed(tokens), memory))
            following = following.masked_fill(done, end if ends else pad) if pads or ends else following
            tokens = torch.cat([tokens, following[:, None]], 1)
            done = (tokens == end).any(1) if whole else (following == end) | (done & remembers)
            if stop is not None and stop(done):
                break
        shown = tokens if end_shown else tokens.masked_fill(tokens == end, pad)
        return shown[:, keep]

    return greedy_decode


exercise.mistake(
    "a row goes on after its end", hint="Other rows may need more steps. Rows that have ended get `pad` from there on."
)(_greedy(pads=False))

exercise.mistake("everything stops as soon as the first row ends", hint="Stop when all rows have ended: all, not any.")(
    _greedy(stop=torch.any)
)

exercise.mistake("it never stops before max_tokens", hint="When every row has ended there is nothing left to ask.")(
    _greedy(stop=None)
)

exercise.mistake(
    "a row that has ended is forgotten one step later, and starts to talk again",
    hint="Keep the flag: done = done | (following == end).",
)(_greedy(remembers=False))

exercise.mistake(
    "the start token counts as an end where both are the same",
    hint="Some models begin and end with one token. Look for `end` among the new tokens only.",
)(_greedy(whole=True))

exercise.mistake(
    "the start token is part of the result",
    hint="The start token only sets the decoder going. Leave it out at the end.",
)(_greedy(keep=slice(None)))

exercise.mistake(
    "the end token is replaced by padding",
    hint="Keep `end` in the result: it tells a row that ended from one that was cut.",
)(_greedy(end_shown=False))

exercise.mistake("the logits of the first position are read", hint="The newest token is the last one: logits[:, -1].")(
    _greedy(pick=lambda logits: logits[:, 0].argmax(-1))
)

exercise.mistake(
    "only the newest token is fed to the decoder", hint="This decoder has no cache: it needs all tokens so far."
)(_greedy(feed=lambda tokens: tokens[:, -1:]))

exercise.mistake("it takes one step too few", hint="max_tokens counts new tokens; the start token isn't one of them.")(
    _greedy(steps=-1)
)

exercise.mistake(
    "the source is encoded anew at every step",
    hint="The source doesn't change while the answer grows: encode it once, before the loop.",
)(_greedy(again=True))

exercise.mistake(
    "the decoder gets the source rather than the encoder's result",
    hint="memory = encode(source); then decode(tokens, memory).",
)(_greedy(raw=True))


@exercise.mistake("the tokens come as int32", hint="argmax gives int64, and so does torch.full with a whole number.")
def greedy_in_int32(encode, decode, source, start, end, pad, max_tokens):
    return _greedy()(encode, decode, source, start, end, pad, max_tokens).int()


@exercise.mistake("the result is as wide as max_tokens", hint="It ends with the longest row: stop there, add nothing.")
def greedy_padded(encode, decode, source, start, end, pad, max_tokens):
    tokens = _greedy()(encode, decode, source, start, end, pad, max_tokens)
    return torch.nn.functional.pad(tokens, (0, max_tokens - tokens.shape[1]), value=pad)


exercise.mistake("after its end a row holds `end`", hint="The first `end` stays, and `pad` follows.")(
    _greedy(pads=False, ends=True)
)

exercise.mistake("it takes one step too many", hint="max_tokens counts new tokens: range(max_tokens).")(
    _greedy(steps=1)
)

exercise.mistake("the least likely token is taken", hint="argmax, not argmin.")(
    _greedy(pick=lambda logits: logits[:, -1].argmin(-1))
)


@exercise.alternative
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


@exercise.alternative
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
