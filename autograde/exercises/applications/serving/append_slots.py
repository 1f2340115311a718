"""`append_slots(tables, lengths, new, free, block)`

Where in a paged KV cache the next tokens of every running text go.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "append_slots",
    points=3,
    fresh=True,
    strict=True,
    no_gradient="blocks and slots are whole numbers",
    hints=[
        "For each text: how many blocks will it need in all, and how many does it have? Are so many free?",
        "It needs ⌈(length + new) / block⌉ blocks. If those that it lacks are free, take them from the front. The "
        "token at position p lies in block table[p // block], at place p % block.",
        "lacking = -(-(length + n) // block) - len(table). If lacking > len(free), the slots are None. Else table, "
        "free = table + free[:lacking], free[lacking:], and slots = [table[p // block] * block + p % block for p "
        "in range(length, length + n)].",
    ],
)


def _caches(g, lengths, block, spare):
    """Block tables for texts of these lengths and a list of free blocks, all in random order."""
    needs = [-(-n // block) for n in lengths]
    blocks = torch.randperm(sum(needs) + spare + 3, generator=g).tolist()
    tables = []
    for need in needs:
        tables.append(blocks[:need])
        blocks = blocks[need:]
    return tables, list(lengths), blocks[:spare]


@exercise.cases
def caches(g):
    def some(lengths, new, block, spare, label):
        tables, lengths, free = _caches(g, lengths, block, spare)
        return case(tables, lengths, new, free, block, label=label)

    yield some([5], [1], 4, 3, "one text, one token, room in its last block")
    yield some([8], [1], 4, 3, "its last block is full")
    yield some([7, 4, 9], [1, 1, 1], 4, 4, "three texts, one token each")
    yield some([0, 6], [11, 1], 4, 5, "a new text with a long prompt")
    yield some([3, 0, 8], [6, 5, 9], 4, 9, "many tokens each")
    yield some([4, 8, 5, 12], [1, 1, 1, 1], 4, 1, "one free block for three texts that need one")
    yield some([0, 4, 8], [9, 1, 1], 4, 2, "the first needs more than is free, the others still get theirs")
    yield some([4, 3], [5, 1], 4, 1, "two are needed, one is free: none is taken")
    yield some([4, 2, 0], [0, 1, 0], 4, 2, "texts that get no token")
    yield some([4, 8], [1, 1], 4, 0, "nothing is free")
    yield some([3, 5, 0], [2, 1, 3], 1, 9, "blocks of one token")
    yield some([15, 32, 40], [2, 1, 24], 16, 6, "blocks of 16 tokens")
    yield some([], [], 16, 2, "no text")
    many = [pick(g, 1, 60) for _ in range(40)]
    yield some(many, [pick(g, 0, 20) for _ in many], 8, 30, "forty texts")


@exercise.oracle
def token_by_token(tables, lengths, new, free, block):
    """The plain loop: a token after the other, a block as soon as one is needed, given back if it wasn't enough."""
    slots, tables, free = [], [list(table) for table in tables], list(free)
    for table, length, n in zip(tables, lengths, new, strict=True):
        places, taken = [], []
        for position in range(length, length + n):
            if position // block == len(table) + len(taken) and free:
                taken.append(free.pop(0))
            if position // block == len(table) + len(taken):
                places = None
                free[:0] = taken
                break
            places.append((table + taken)[position // block] * block + position % block)
        slots.append(places)
        if places is not None:
            table += taken
    return slots, tables, free


@exercise.law("No two tokens share a slot")
def _apart(out, one, call):
    taken = [slot for slots in out[0] if slots is not None for slot in slots]
    return len(taken) == len(set(taken))


@exercise.law("Every block is in one table or free, and none gets lost", essential=True)
def _nothing_lost(out, one, call):
    tables, _, _, free, _ = one.args
    before = sorted([*free, *(block for table in tables for block in table)])
    return sorted([*out[2], *(block for table in out[1] for block in table)]) == before


@exercise.law("A text keeps the blocks that it has, in their order")
def _keeps_its_blocks(out, one, call):
    return all(list(after[: len(before)]) == before for before, after in zip(one.args[0], out[1], strict=True))


@exercise.law("A text has a block for every token and none to spare")
def _as_many_as_needed(out, one, call):
    _, lengths, new, _, block = one.args
    held = [n if slots is None else n + more for n, more, slots in zip(lengths, new, out[0], strict=True)]
    return [len(table) for table in out[1]] == [-(-n // block) for n in held]


def _paging(needed=None, take=None, slot=None, refuse="skip", stop=False):
    """A wrong allocator: the right one with a part replaced."""

    def append_slots(tables, lengths, new, free, block):
        slots, after, free, stopped = [], [], list(free), False
        for table, length, n in zip(tables, lengths, new, strict=True):
            table = list(table)
            total = needed(length, n, block) if needed else -(-(length + n) // block)
            lacking = max(total - len(table), 0)
            if stopped or (lacking > len(free)):
                stopped = stop
                if refuse == "partly":
                    table, free = table + free, []
                slots.append([] if refuse == "empty" else None)
                after.append(table)
                continue
            taken, free = take(free, lacking) if take else (free[:lacking], free[lacking:])
            table = table + taken
            place = slot or (lambda table, p, block: table[p // block] * block + p % block)
            slots.append([place(table, p, block) for p in range(length, length + n)])
            after.append(table)
        return slots, after, free

    return append_slots


exercise.mistake(
    "a text whose last block is full gets no new one until it is over it",
    hint="With 8 tokens in blocks of 4, token number 9 (position 8) needs a third block.",
)(
    _paging(
        needed=lambda length, n, block: max(-(-(length + n - 1) // block), 1 if length + n else 0),
        slot=lambda table, p, block: table[min(p // block, len(table) - 1)] * block + p % block,
    )
)

exercise.mistake(
    "a block is taken as soon as the last one is full", hint="Take a block when a token needs it, not before."
)(_paging(needed=lambda length, n, block: (length + n) // block + 1))

exercise.mistake(
    "every call takes fresh blocks for the new tokens",
    hint="The last block of a text may have room: ⌈(length + new) / block⌉ blocks in all.",
)(
    _paging(
        needed=lambda length, n, block: -(-length // block) + -(-n // block),
    )
)


@exercise.mistake(
    "new tokens begin in a fresh block, though the last one has room",
    hint="The first new token has position `length`: it lies behind the last one, in the same block if there is room.",
)
def fresh_start(tables, lengths, new, free, block):
    return _paging()(tables, [len(table) * block for table in tables], new, free, block)


exercise.mistake(
    "a block's number isn't multiplied by its size", hint="Block 3 of 4 tokens begins at slot 12: number times block."
)(_paging(slot=lambda table, p, block: table[p // block] + p % block))

exercise.mistake("the blocks are taken from the end of the free ones", hint="From the front: the docstring says so.")(
    _paging(take=lambda free, n: (free[len(free) - n :][::-1], free[: len(free) - n]))
)

exercise.mistake("the free blocks of the lowest numbers are taken", hint="From the front, whatever their numbers.")(
    _paging(take=lambda free, n: (sorted(free)[:n], [one for one in free if one not in sorted(free)[:n]]))
)

exercise.mistake("as many blocks as are free are one too many", hint="What needs them all gets them all.")(
    lambda tables, lengths, new, free, block: _spare(tables, lengths, new, free, block)
)


def _spare(tables, lengths, new, free, block):
    slots, after, left = _paging()(tables, lengths, new, free[:-1], block)
    return slots, after, [*left, *free[-1:]]


exercise.mistake("the blocks that were taken stay free", hint="What a text has got is no longer free.")(
    _paging(take=lambda free, n: (free[:n], free))
)

exercise.mistake(
    "a slot is the number of a block",
    hint="A block has room for `block` tokens: its number times block, plus the place in it.",
)(_paging(slot=lambda table, p, block: table[p // block]))

exercise.mistake(
    "slots are counted as if the blocks of a text lay side by side",
    hint="Only within a block do tokens lie side by side. For each token look up table[p // block].",
)(_paging(slot=lambda table, p, block: table[0] * block + p))

exercise.mistake("the place in the block is left out", hint="Position p lies at place p % block of its block.")(
    _paging(slot=lambda table, p, block: table[p // block] * block)
)

exercise.mistake(
    "each text counts its own tokens from 0", hint="Slots are of the whole cache: look the position up in the table."
)(_paging(slot=lambda table, p, block: p))

exercise.mistake(
    "a text that can't get all its blocks takes what there is",
    hint="All or nothing: other texts could have used them.",
)(_paging(refuse="partly"))

exercise.mistake(
    "after the first text without room all others are turned away",
    hint="A later text may need no block at all: it is still served.",
)(_paging(stop=True))

exercise.mistake("a text without room gets an empty list", hint="None, as the docstring says: [] is for no new token.")(
    _paging(refuse="empty")
)


@exercise.mistake(
    "the tables are given back as they were",
    hint="Return the tables with the new blocks: the next step looks its tokens up in them.",
)
def old_tables(tables, lengths, new, free, block):
    slots, _, left = _paging()(tables, lengths, new, free, block)
    return slots, [list(table) for table in tables], left


@exercise.mistake("one slot for each text is returned, its first", hint="A slot for every new token, in a list.")
def first_slots(tables, lengths, new, free, block):
    slots, after, left = _paging()(tables, lengths, new, free, block)
    return [some[:1] if some else some for some in slots], after, left


@exercise.mistake("the free blocks are sorted first", hint="From the front of `free`, in the order that it has.")
def sorted_first(tables, lengths, new, free, block):
    return _paging()(tables, lengths, new, sorted(free), block)


@exercise.mistake("the texts with fewer new tokens are served first", hint="In the order in which they are given.")
def small_first(tables, lengths, new, free, block):
    slots, after, free = [None] * len(new), [list(table) for table in tables], list(free)
    for i in sorted(range(len(new)), key=lambda i: new[i]):
        (slots[i],), (after[i],), free = _paging()([after[i]], [lengths[i]], [new[i]], free, block)
    return slots, after, free


def _told(change):
    """The right tables with other slots: `change(slots, table, length, n, block)` for a text that is served."""

    def append_slots(tables, lengths, new, free, block):
        slots, after, left = _paging()(tables, lengths, new, free, block)
        each = zip(slots, after, lengths, new, strict=True)
        return [change(some, table, length, n, block) for some, table, length, n in each], after, left

    return append_slots


exercise.mistake(
    "a text that gets no token has None", hint="None is for a text that can't get its blocks, [] for no token."
)(_told(lambda slots, table, length, n, block: slots or None))

exercise.mistake("-1 stands for a text without room", hint="None, as the docstring says.")(
    _told(lambda slots, table, length, n, block: -1 if slots is None else slots)
)

exercise.mistake("the slots of all tokens are given, also of the old ones", hint="Only of the tokens that are new.")(
    _told(
        lambda slots, table, length, n, block: (
            slots and [table[p // block] * block + p % block for p in range(length + n)]
        )
    )
)

exercise.mistake(
    "positions are counted from 1", hint="The first new token of a text with 5 has position 5, for they begin at 0."
)(
    _told(
        lambda slots, table, length, n, block: (
            slots
            and [table[min(p // block, len(table) - 1)] * block + p % block for p in range(length + 1, length + n + 1)]
        )
    )
)

exercise.alternative(_paging())


@exercise.alternative
def by_tensors(tables, lengths, new, free, block):
    """Right: the slots of a text in one look-up."""
    free, slots, after = list(free), [], []
    for i, table in enumerate(tables):
        positions = torch.arange(lengths[i], lengths[i] + new[i])
        lacking = -(-(lengths[i] + new[i]) // block) - len(table)
        if lacking > len(free):
            slots.append(None)
            after.append([*table])
            continue
        after.append([*table, *(free.pop(0) for _ in range(max(lacking, 0)))])
        blocks = torch.tensor(after[-1] or [0])
        slots.append((blocks[positions // block] * block + positions % block).tolist())
    return slots, after, free
