"""`generate_with_cache(read, ids, steps, cache=None)`

Continue every row of a text by its likeliest tokens, reading nothing twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case

exercise = Draft(
    "generate_with_cache",
    points=4,
    no_gradient="the likeliest token is a whole number",
    hints=[
        "What has the model not read yet, before each call? First all of ids, then a single token a row.",
        "logits, cache = read(piece, cache); the new token is logits[:, -1].argmax(-1); the next piece is that token, "
        "as [rows, 1].",
        "for _ in range(steps): logits, cache = read(ids, cache); ids = logits[:, -1:].argmax(-1); new.append(ids). "
        "Then torch.cat(new, 1), cache.",
    ],
)


@exercise.cases
def cache_cases(g):
    def model(vocabulary, d=6, places=48):
        def matrix(rows, columns, scale):
            return scale * torch.randn(rows, columns, generator=g, dtype=torch.float64)

        return {
            "embed": matrix(vocabulary, d, 1.0),
            "places": matrix(places, d, 1.0),
            "wq": matrix(d, d, 0.8),
            "wk": matrix(d, d, 0.8),
            "wv": matrix(d, d, 1.5),
        }

    def one(rows, lengths, steps, label, vocabulary=29):
        turns = [torch.randint(vocabulary, (rows, n), generator=g) for n in lengths]
        return case(turns, list(steps), model(vocabulary), label=label)

    yield one(1, [4], [6], "one row")
    yield one(3, [5], [7], "three rows")
    yield one(2, [1], [5], "a text of one token")
    yield one(2, [6], [1], "one new token only")
    yield one(2, [4, 3], [3, 4], "two turns")
    yield one(1, [3, 1, 5], [4, 1, 3], "three turns, a short one between", vocabulary=17)
    yield one(4, [2, 6], [1, 6], "two turns, the first answer one token long")
    yield one(2, [23], [22], "a longer text")
    yield one(2, [2, 1], [4, 3], "nothing but token 0 in the vocabulary", vocabulary=1)


@exercise.oracle
def without_cache(turns, steps, weights):
    """The same conversation by torch's own causal attention over the whole text, again for every token."""
    embed, places, wq, wk, wv = (weights[name] for name in ("embed", "places", "wq", "wk", "wv"))

    def best(text):
        x = embed[text] + places[: text.shape[1]]
        x = x + F.scaled_dot_product_attention(x @ wq, x @ wk, x @ wv, is_causal=True)
        return (x[:, -1:] @ embed.mT).argmax(-1)

    out, text = {}, turns[0][:, :0]
    for number, (turn, count) in enumerate(zip(turns, steps, strict=True), 1):
        text, start = torch.cat([text, turn], 1), text.shape[1]
        asked = text.shape[1] - start + (number > 1)
        for _ in range(count):
            text = torch.cat([text, best(text)], 1)
        out[f"tokens, turn {number}"] = text[:, -count:]
        out[f"reads, turn {number}"] = [asked] + [1] * (count - 1)
        out[f"kept, turn {number}"] = text.shape[1] - 1
    return out


@exercise.probe
def conversation(generate_with_cache, turns, steps, weights):
    """Let the learner's loop talk to a small attention model, turn by turn, with the cache handed on.

    turns: the new text of every turn, int64 [rows, n] each; steps: how many tokens answer it. Gives for every turn the
    new tokens, the lengths of the pieces that were read, and the tokens that the cache handed back holds.
    """
    import torch

    embed, places, wq, wk, wv = (weights[name] for name in ("embed", "places", "wq", "wk", "wv"))
    pieces = []

    class Cache:
        """Keys and values, [rows, n, d] each. It has no length, and can't be cut."""

        def __init__(self, keys, values):
            self.keys, self.values = keys, values

    def read(tokens, cache):
        pieces.append(tokens.shape[1])
        past = 0 if cache is None else cache.keys.shape[1]
        m = tokens.shape[1]
        if past + m > len(places):
            raise ValueError(f"the model has places for {len(places)} tokens, and this one would be number {past + m}")
        x = embed[tokens] + places[past : past + m]
        keys, values = x @ wk, x @ wv
        if cache is not None:
            keys, values = torch.cat([cache.keys, keys], 1), torch.cat([cache.values, values], 1)
        scores = (x @ wq) @ keys.mT / keys.shape[-1] ** 0.5
        hidden = torch.arange(past + m) > torch.arange(past, past + m)[:, None]
        x = x + scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values
        return x @ embed.mT, Cache(keys, values)

    out, cache, text, last = {}, None, None, None
    for number, (turn, count) in enumerate(zip(turns, steps, strict=True), 1):
        text = turn if last is None else torch.cat([last, turn], 1)
        pieces.clear()
        made = generate_with_cache(read, text, count, *([] if cache is None else [cache]))
        if not isinstance(made, (tuple, list)) or len(made) != 2 or not isinstance(made[0], torch.Tensor):
            raise TypeError("generate_with_cache should return two things: the new tokens (a tensor), and the cache")
        tokens, cache = made
        kept = cache.keys.shape[1] if isinstance(cache, Cache) else 0
        out |= {f"tokens, turn {number}": tokens, f"reads, turn {number}": list(pieces), f"kept, turn {number}": kept}
        last = tokens[:, -1:]
    return out


@exercise.law("The new tokens are int64")
def tokens_are_int64(out, one, call):
    return all(value.dtype is torch.int64 for key, value in out.items() if key.startswith("tokens"))


def _reads(out):
    return [out[key] for key in out if key.startswith("reads")]


@exercise.law("New text is read in one go")
def prompt_in_one_go(out, one, call):
    turns = one.args[0]
    wanted = [turn.shape[1] + (i > 0) for i, turn in enumerate(turns)]
    return [pieces[:1] for pieces in _reads(out)] == [[n] for n in wanted]


@exercise.law("After that one token at a time is read")
def then_one_by_one(out, one, call):
    return all(piece == 1 for pieces in _reads(out) for piece in pieces[1:])


@exercise.law("The model is called once for every new token")
def one_read_a_token(out, one, call):
    counts = [len(pieces) for pieces in _reads(out)]
    return counts == one.args[1] or f"the model was called {counts} times where {one.args[1]} new tokens were asked for"


@exercise.law("Each row by itself gives the same tokens")
def rows_are_alone(out, one, call):
    turns, steps, weights = one.args
    if len(turns[0]) == 1:
        return None
    last = len(turns[0]) - 1
    alone = call([turn[last:] for turn in turns], steps, weights)
    return all(torch.equal(alone[key][0], out[key][last]) for key in out if key.startswith("tokens"))


@exercise.law("Asked for one token less, it gives the same tokens, one less")
def cache_or_not(out, one, call):
    """The first turn again, as two: its first tokens one after the other."""
    turns, steps, weights = one.args
    if len(turns) > 1 or turns[0].shape[1] < 2 or steps[0] < 2:
        return None
    shorter = call(turns, [steps[0] - 1], weights)["tokens, turn 1"]
    return torch.equal(shorter, out["tokens, turn 1"][:, :-1])


def _writing(
    best=lambda logits: logits[:, -1].argmax(-1),
    first=lambda ids: ids,
    again=lambda text, new: new,
    hands_on=True,
    given=True,
    extra=0,
    gives_back=lambda cache, old: cache,
    reads_last=False,
    shows_prompt=False,
):
    """`generate_with_cache` with parts exchanged."""

    def generate_with_cache(read, ids, steps, cache=None):
        old, cache, piece, text = cache, cache if given else None, first(ids), ids
        for _ in range(steps + extra):
            logits, renewed = read(piece, cache)
            cache = renewed if hands_on else cache
            new = best(logits)[:, None]
            text = torch.cat([text, new], 1)
            piece = again(text, new)
        if reads_last:
            _, cache = read(piece, cache)
        return text if shows_prompt else text[:, ids.shape[1] :], gives_back(cache, old)

    return generate_with_cache


exercise.mistake(
    "the whole text is read again at each step, on top of the cache",
    hint="The cache holds it already: now the model sees everything twice. Read the new token alone.",
)(_writing(again=lambda text, new: text))

exercise.mistake(
    "the cache isn't used, and the whole text is read at each step",
    hint="The tokens are right, and the work is wasted: hand the cache on and read only what is new.",
)(_writing(again=lambda text, new: text, hands_on=False))

exercise.mistake(
    "the cache that read returns is thrown away",
    hint="logits, cache = read(piece, cache): the next call needs the new one.",
)(_writing(hands_on=False))

exercise.mistake(
    "only the last token of the text is read",
    hint="Without a cache the model has read nothing yet. The first call takes all of ids.",
)(_writing(first=lambda ids: ids[:, -1:]))

exercise.mistake(
    "the last token of the text isn't read",
    hint="All of ids: the last token's logits are those of the first new token.",
)(_writing(first=lambda ids: ids[:, :-1] if ids.shape[1] > 1 else ids))

exercise.mistake(
    "the logits of the first place are taken", hint="What follows the text is said at its last place: logits[:, -1]."
)(_writing(best=lambda logits: logits[:, 0].argmax(-1)))

exercise.mistake(
    "one best token is looked for in the whole batch",
    hint="argmax without a dim runs over everything. Each row has its own best token.",
)(_writing(best=lambda logits: logits[:, -1].argmax().expand(len(logits)) % logits.shape[-1]))

exercise.mistake("the least likely token is taken", hint="argmax.")(
    _writing(best=lambda logits: logits[:, -1].argmin(-1))
)


@exercise.mistake(
    "writing stops at token 0", hint="Token 0 is a token like any other, and 0 is false in Python: count the steps."
)
def stops_at_zero(read, ids, steps, cache=None):
    new = []
    while len(new) < steps:
        logits, cache = read(new[-1] if new else ids, cache)
        new.append(logits[:, -1:].argmax(-1))
        if not new[-1].all():
            break
    return torch.cat(new, 1), cache


exercise.mistake("the new tokens are int32", hint="argmax gives int64: keep it.")(
    lambda read, ids, steps, cache=None: (lambda new, kept: (new.int(), kept))(*cached(read, ids, steps, cache))
)

exercise.mistake("the token is drawn", hint="Greedy here: the best token, always.")(
    _writing(best=lambda logits: torch.multinomial(logits[:, -1].softmax(-1), 1)[:, 0])
)

exercise.mistake("the cache that was handed in is ignored", hint="The first read of a turn goes on from `cache`.")(
    _writing(given=False)
)

exercise.mistake(
    "the cache that was handed in is handed back",
    hint="Return the newest cache, that of the last read. What you were given may be None.",
)(_writing(gives_back=lambda cache, old: old))

exercise.mistake(
    "the last new token is read, too", hint="Nobody asked what comes after it. The next turn begins with it."
)(_writing(reads_last=True))

exercise.mistake(
    "there is one new token too many", hint="The first read gives the first new token already: steps reads in all."
)(_writing(extra=1))

exercise.mistake("there is one new token too few", hint="steps reads, steps tokens.")(_writing(extra=-1))

exercise.mistake("the text comes back together with the new tokens", hint="Only what is new: [rows, steps].")(
    _writing(shows_prompt=True)
)

cached = _writing()


exercise.mistake("the cache isn't returned", hint="Two things: (new, cache).")(lambda *args: cached(*args)[0])

exercise.mistake("every row gets the tokens of the first", hint="Each row has its own best token: argmax along -1.")(
    _writing(best=lambda logits: logits[:1, -1].argmax(-1).expand(len(logits)))
)

exercise.mistake(
    "of a later turn only the last token is read", hint="Nothing of `ids` is in the cache yet: read all of them."
)(lambda read, ids, steps, cache=None: cached(read, ids if cache is None else ids[:, -1:], steps, cache))


exercise.mistake(
    "the first token of a later turn is taken for read",
    hint="The cache holds everything but the last new token: that token is still unread.",
)(
    lambda read, ids, steps, cache=None: cached(
        read, ids if cache is None or ids.shape[1] == 1 else ids[:, 1:], steps, cache
    )
)


@exercise.mistake(
    "the text is read token by token",
    hint="It is all there: one call reads it in parallel. Only writing has to go one by one.",
)
def cache_prompt_by_token(read, ids, steps, cache=None):
    """The prompt is read token by token, as an RNN would."""
    for token in ids.unbind(1)[:-1]:
        _, cache = read(token[:, None], cache)
    return cached(read, ids[:, -1:], steps, cache)


exercise.alternative(cached)


@exercise.alternative
def cached_by_list(read, ids, steps, cache=None):
    logits, cache = read(ids, cache)
    made = [logits[:, -1].max(-1).indices]
    while len(made) < steps:
        logits, cache = read(made[-1].reshape(-1, 1), cache)
        made.append(logits.squeeze(1).topk(1).indices[:, 0])
    return torch.stack(made).T, cache


@exercise.alternative
def cached_into_buffer(read, ids, steps, cache=None):
    out = ids.new_empty(len(ids), steps)
    for i in range(steps):
        scores, cache = read(out[:, i - 1 : i] if i else ids, cache)
        torch.argmax(scores[:, -1], dim=-1, out=out[:, i])
    return out, cache
