"""`cached_prefix(prompts, block)`

How many tokens of each prompt have their keys and values in the cache already, from the prompts before it.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "cached_prefix",
    points=3,
    strict=True,
    no_gradient="tokens are whole numbers",
    hints=[
        "May a block be taken from the cache if a token before it differs? What do its keys and values depend on?",
        "Keep a set of whole beginnings: a full block's key is everything from the start to its end. Go on from block "
        "to block while the key is there, and stop before the block with the last token of the prompt.",
        "With seen = set(): n = 0; while n + block < len(prompt) and tuple(prompt[: n + block]) in seen: n += block. "
        "Then add tuple(prompt[:end]) for every end = block, 2 · block, … ≤ len(prompt).",
    ],
)


def _tokens(g, n, high=90):
    return torch.randint(1, high, (n,), generator=g).tolist()


@exercise.cases
def chats(g):
    def other(token):
        return token + 100

    system = _tokens(g, 11)
    yield case([system + _tokens(g, 6), system + _tokens(g, 4), system + _tokens(g, 9)], 4, label="a system prompt")
    text = _tokens(g, 14)
    yield case([text[:6], text[:11], text], 4, label="a chat that grows")
    yield case([text, text[:6], text[:9]], 4, label="a chat that shrinks")
    yield case([text[:8], text[:8], text[:8] + [5]], 4, label="the same prompt again: its last token is computed")
    yield case([text[:9], text[:9]], 4, label="the same prompt again, a token after its last full block")
    a, b, c, d, e = ([other(100 * i + t) for t in _tokens(g, 4)] for i in range(5))
    yield case(
        [[*a, *b, *c, 1], [*a, *d, *c, 1], [*a, *d, *e, 1], [*a, *d, *b, 1]], 4, label="another block in between"
    )
    yield case([[*a, *b, *c, 1], [*d, *b, *e, 1], [*d, *b, *c, 1]], 4, label="two blocks with another beginning")
    yield case(
        [[*a, *b, *e, 1], [*a, *d, *c, 1], [*a, *b, *c, 1]], 4, label="a third block that followed another second"
    )
    yield case([[*a, *b, *c, 1], [*b, *a, *c, 1], [*a, *c, *b, 1]], 4, label="the same blocks in another order")
    yield case([[*a, *a, *a], [*a, *a, *a, *a, 7]], 4, label="the same block several times")
    yield case(
        [[*a, *b, *c, *d, 1], [*e, *b, *c, *a, 1], [*e, *b, *c, *d, 1]], 4, label="three blocks with another beginning"
    )
    first = _tokens(g, 9)
    yield case([[*first, 3], [other(first[0]), *first[1:], 3], [*first, 4]], 4, label="another first token")
    yield case([[*first], [*_tokens(g, 9)], [*first, 8, 8, 8, 8]], 4, label="not the prompt just before")
    yield case([text[:3], text[:3], text[:3] + [7, 7]], 4, label="shorter than a block")
    yield case([text[:5], [*text[:3], other(text[3]), 7], text[:3]], 1, label="blocks of one token")
    yield case([[1, 23, 4, 5, 6], [12, 3, 4, 5, 6], [1, 2, 34, 5, 6]], 2, label="12 3 is not 1 23")
    yield case([[7, 3, 2, 2], [6, 4, 2, 2], [3, 7, 2, 2, 1]], 2, label="other tokens with the same sum")
    yield case([[3, 1, 9], [1, 2, 9], [3, 1, 8]], 2, label="other tokens with the same sum of place times token")
    yield case([[3, 3, 5, 9], [3, 5, 5, 9], [3, 3, 5, 8]], 3, label="another token twice")
    yield case([[5]], 4, label="one token")
    yield case([], 4, label="no prompt")
    shared = [_tokens(g, 64) for _ in range(3)]
    many = [shared[pick(g, 0, 2)][: pick(g, 10, 64)] + _tokens(g, pick(g, 1, 40)) for _ in range(40)]
    yield case(many, 16, label="forty prompts, three beginnings")


@exercise.oracle
def by_comparing(prompts, block):
    """Without any cache: the longest run of full blocks that an earlier prompt began with, too."""
    found = []
    for i, prompt in enumerate(prompts):
        best = 0
        for earlier in prompts[:i]:
            same = 0
            while same < min(len(prompt), len(earlier)) and prompt[same] == earlier[same]:
                same += 1
            best = max(best, min(same, len(prompt) - 1) // block * block)
        found.append(best)
    return found


@exercise.law("Something is left to compute of every prompt, or there would be no next token")
def _something_left(out, one, call):
    return all(n < len(prompt) for n, prompt in zip(out, one.args[0], strict=True))


@exercise.law("Only whole blocks come from the cache")
def _whole_blocks(out, one, call):
    return all(n % one.args[1] == 0 for n in out)


@exercise.law("A prompt that comes again has everything but its last token's block", essential=True)
def _again(out, one, call):
    prompts, block = one.args
    if not prompts or len(prompts) > 10:
        return None
    return call([*prompts, prompts[0]], block)[-1] == (len(prompts[0]) - 1) // block * block


@exercise.law("Another first token, and nothing is in the cache")
def _first_token_differs(out, one, call):
    prompts, block = one.args
    if not prompts or len(prompts) > 10:
        return None
    return call([*prompts, [10_000, *prompts[0][1:]]], block)[-1] == 0


def _caching(key=None, keep_last=True, whole=True, insert=True, unit=1, forget=False, partial=False):
    """A wrong cache: the right one with a part replaced. `key(prompt, start, end)` names a block."""

    def cached_prefix(prompts, block):
        seen, found = set(), []
        name = key or (lambda prompt, start, end: tuple(prompt[:end]))
        for prompt in prompts:
            n = 0
            limit = len(prompt) - 1 if keep_last else len(prompt)
            while n + block <= limit and name(prompt, n, n + block) in seen:
                n += block
            if not whole:
                names = [name(prompt, at, at + block) in seen for at in range(0, limit - block + 1, block)]
                n = block * sum(names)
            found.append(n // (block if unit == "block" else 1))
            if forget:
                seen = set()
            if insert:
                ends = range(block, len(prompt) + (block if partial else 1), block)
                seen |= {name(prompt, end - block, end) for end in ends}
        return found

    return cached_prefix


exercise.mistake(
    "a block is known by its own tokens alone",
    hint="Keys and values depend on everything before, and on the position: the block's key is the whole beginning.",
)(_caching(key=lambda prompt, start, end: tuple(prompt[start:end])))

exercise.mistake(
    "a block is known by its tokens and its place, whatever stands before",
    hint="Attention has mixed the tokens before into the block's keys: all of them have to agree.",
)(_caching(key=lambda prompt, start, end: (start, tuple(prompt[start:end]))))

exercise.mistake(
    "a block is known by its own tokens and those of the block before",
    hint="All blocks before have to agree, not the last one alone.",
)(_caching(key=lambda prompt, start, end: (start, tuple(prompt[max(0, 2 * start - end) : end]))))

exercise.mistake(
    "a later block counts though one before it is missing", hint="The prefix ends at the first block that isn't there."
)(_caching(key=lambda prompt, start, end: (start, tuple(prompt[start:end])), whole=False))

exercise.mistake(
    "a prompt may come from the cache as a whole",
    hint="The last token has to be computed: its logits give the next token.",
)(_caching(keep_last=False))

exercise.mistake("blocks are counted, not tokens", hint="The number of tokens is asked for.")(_caching(unit="block"))

exercise.mistake(
    "only the prompt just before is remembered", hint="The cache keeps the blocks of all prompts that came before."
)(_caching(forget=True))

exercise.mistake("nothing is ever put into the cache", hint="After a prompt is served, its full blocks are kept.")(
    _caching(insert=False)
)

exercise.mistake(
    "beginnings with the same sum count as the same", hint="Compare the tokens; a hash has to tell their order."
)(_caching(key=lambda prompt, start, end: (end, sum(prompt[:end]))))

exercise.mistake(
    "the order of the tokens is not looked at", hint="'the cat' and 'cat the' have other keys and values."
)(_caching(key=lambda prompt, start, end: tuple(sorted(prompt[:end]))))

exercise.mistake(
    "the ids are glued to one text without a separator", hint="'1' and '23' glued are '123', and so are '12' and '3'."
)(_caching(key=lambda prompt, start, end: "".join(map(str, prompt[:end]))))


def _longest(prompts, block, limit=1, of=lambda earlier: earlier, cut=lambda n, block: n):
    """The tokens of each prompt that an earlier one begins with, too."""
    found = []
    for i, prompt in enumerate(prompts):
        best = 0
        for earlier in of(prompts[:i]):
            pairs = list(zip(prompt[: len(prompt) - limit], earlier, strict=False))
            same = next((at for at, (a, b) in enumerate(pairs) if a != b), len(pairs))
            best = max(best, cut(same, block))
        found.append(best)
    return found


exercise.mistake(
    "tokens are counted, though the cache keeps full blocks",
    hint="Round down to whole blocks: a begun one isn't shared.",
)(_longest)

exercise.mistake("begun blocks are rounded up", hint="Only full blocks are shared: round down.")(
    lambda prompts, block: [
        min(-(-n // block) * block, (len(prompt) - 1) // block * block)
        for n, prompt in zip(_longest(prompts, block), prompts, strict=True)
    ]
)

exercise.mistake(
    "only the first prompt is remembered", hint="Every prompt leaves its blocks in the cache, not the first alone."
)(lambda prompts, block: _longest(prompts, block, of=lambda earlier: earlier[:1], cut=lambda n, b: n // b * b))

exercise.mistake("what is left to compute is returned", hint="The tokens that are taken from the cache.")(
    lambda prompts, block: [len(prompt) - n for prompt, n in zip(prompts, _caching()(prompts, block), strict=True)]
)

exercise.mistake("at most one block is taken", hint="Go on as long as the next block is there, too.")(
    lambda prompts, block: [min(n, block) for n in _caching()(prompts, block)]
)

exercise.mistake("a block is known by the set of tokens up to its end", hint="Order and repetitions count.")(
    _caching(key=lambda prompt, start, end: (end, frozenset(prompt[:end])))
)

exercise.mistake(
    "a block that ends with the prompt is not kept",
    hint="It is full, so it is kept; only for its own prompt it is computed.",
)(lambda prompts, block: _without_last(prompts, block))


def _without_last(prompts, block):
    seen, found = set(), []
    for prompt in prompts:
        n = 0
        while n + block < len(prompt) and tuple(prompt[: n + block]) in seen:
            n += block
        found.append(n)
        seen |= {tuple(prompt[:end]) for end in range(block, len(prompt), block)}
    return found


exercise.mistake(
    "a wholly cached prompt keeps all but its last token",
    hint="Whole blocks alone are taken: the last one is computed.",
)(
    lambda prompts, block: [
        min(n, len(prompt) - 1) for n, prompt in zip(_caching(keep_last=False)(prompts, block), prompts, strict=True)
    ]
)

exercise.mistake("also the prompts that come later are looked at", hint="Only what was served before is in the cache.")(
    lambda prompts, block: [
        max((_caching()([other, prompt], block)[1] for j, other in enumerate(prompts) if j != i), default=0)
        for i, prompt in enumerate(prompts)
    ]
)

exercise.alternative(_caching())


@exercise.alternative
def by_tree(prompts, block):
    """Right: a tree of blocks, as SGLang's radix cache has one."""
    root, found = {}, []
    for prompt in prompts:
        node, n, hit = root, 0, True
        for start in range(0, len(prompt) - block + 1, block):
            name = tuple(prompt[start : start + block])
            hit = hit and name in node and start + block < len(prompt)
            n += block * hit
            node = node.setdefault(name, {})
        found.append(n)
    return found


@exercise.alternative
def by_chained_hash(prompts, block):
    """Right: each block's name holds the name of the one before, as vLLM's does."""
    seen, found = set(), []
    for prompt in prompts:
        names, before = [], None
        for start in range(0, len(prompt) // block * block, block):
            before = (before, tuple(prompt[start : start + block]))
            names.append(before)
        hits = next((i for i, name in enumerate(names) if name not in seen), len(names))
        found.append(min(hits * block, (len(prompt) - 1) // block * block))
        seen.update(names)
    return found
