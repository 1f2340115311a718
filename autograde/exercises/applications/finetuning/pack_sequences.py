"""`pack_sequences(sequences, length, pad=0)`

Several conversations in one row, so that hardly any place is padding.
"""

from __future__ import annotations

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "pack_sequences",
    points=3,
    no_gradient="ids are whole numbers",
    fresh=True,
    hints=[
        "Two steps: first only lengths. Which sequence goes into which row? Then fill the rows in.",
        "For each sequence take the first row whose used places plus its length are at most `length`; if there is "
        "none, a new row. Behind that, each row is a concatenation and some padding.",
        "labels = labels.clone(); labels[0] = -100, positions = torch.arange(len(ids)), owner = torch.full_like(ids, "
        "number); concatenate them for each row, and pad with pad, -100, 0 and -1.",
    ],
)

IGNORED = -100


@exercise.cases
def sequences(g):
    def some(lengths, length, label, **knobs):
        made = []
        for n in lengths:
            ids = torch.randint(1, 90, (n,), generator=g)
            asked = pick(g, 0, max(0, n - 2))
            made.append((ids, ids.masked_fill(torch.arange(n) < asked, IGNORED)))
        made[0][1][0] = made[0][0][0]  # in the first one and the last, every token is scored
        made[-1][1][:] = made[-1][0]
        return case(made, length, label=label, **knobs)

    yield some([3, 4, 2], 10, "all in one row")
    yield some([6, 5, 3, 2, 4], 10, "an earlier row still has room")
    yield some([4, 6, 7, 3, 1], 10, "rows that are exactly full")
    yield some([7, 5, 3, 2, 5, 2], 10, "not the tightest row, but the first")
    yield some([2, 9, 8, 1, 3], 10, "short before long", pad=7)
    yield some([13, 4, 12, 6], 10, "some are too long")
    yield some([10, 11], 10, "as long as a row, and one more")
    yield some([5], 8, "a single one", pad=49_152)
    yield some([1, 1, 1, 1], 3, "single tokens")
    yield some([1, 2, 1], 1, "rows of one token")
    long = [pick(g, 3, 60) for _ in range(40)]
    yield some([*long, 64, 70, 1], 64, "forty of them", pad=2)


@exercise.oracle
def flattened(sequences, length, pad=0):
    """What transformers' DataCollatorWithFlattening makes of each row's sequences."""
    flatten = borrowed("transformers.data.data_collator", "DataCollatorWithFlattening")(return_tensors="pt")
    rows, used = [], []
    for number, (ids, labels) in enumerate(sequences):
        n = min(len(ids), length)
        at = next((i for i, taken in enumerate(used) if taken + n <= length), len(used))
        if at == len(used):
            rows.append([])
            used.append(0)
        rows[at].append((number, {"input_ids": ids[:n].tolist(), "labels": labels[:n].tolist()}))
        used[at] += n
    packed = []
    for row in rows:
        made = flatten([features for _, features in row])
        owners = [number for number, features in row for _ in features["input_ids"]]
        four = [made["input_ids"][0], made["labels"][0], made["position_ids"][0], torch.tensor(owners)]
        filled = zip(four, (pad, IGNORED, 0, -1), strict=True)
        packed.append([torch.nn.functional.pad(x.long(), (0, length - len(x)), value=value) for x, value in filled])
    return tuple(torch.stack(each) for each in zip(*packed, strict=True))


@exercise.law("No token is lost, but for what is cut off")
def nothing_lost(out, one, call):
    wanted = sum(min(len(ids), one.args[1]) for ids, _ in one.args[0])
    return int((out[3] >= 0).sum()) == wanted


@exercise.law("The first token of a sequence is no label: what stands before it is another's")
def first_is_no_label(out, one, call):
    return bool((out[1][(out[2] == 0)] == IGNORED).all())


@exercise.law("A sequence stands in one piece")
def in_one_piece(out, one, call):
    for number, (ids, _) in enumerate(one.args[0]):
        found = (out[3] == number).nonzero()
        if len(found) != min(len(ids), one.args[1]) or len(set(found[:, 0].tolist())) > 1:
            return f"sequence {number} doesn't"
        if not torch.equal(out[0][out[3] == number], ids[: one.args[1]]):
            return f"sequence {number} reads otherwise"
    return True


@exercise.law("All four are int64")
def int64(out, one, call):
    return all(x.dtype is torch.int64 for x in out)


def _first_fit(lengths, length, fits=lambda taken, n, length: taken + n <= length):
    rows, used = [], []
    for number, n in enumerate(lengths):
        at = next((i for i, taken in enumerate(used) if fits(taken, n, length)), len(used))
        if at == len(used):
            rows.append([])
            used.append(0)
        rows[at].append(number)
        used[at] += n
    return rows


def _packing(
    assign=_first_fit,
    cut=lambda x, length: x[:length],
    label=lambda labels, at: torch.cat([torch.full_like(labels[:1], IGNORED), labels[1:]]),
    position=lambda n, before: torch.arange(n),
    owner=lambda number, at: number,
    fill=lambda pad: (pad, IGNORED, 0, -1),
    keep=lambda ids, length: True,
):
    """`pack_sequences` with some of its parts exchanged."""

    def pack_sequences(sequences, length, pad=0):
        cuts = [
            (cut(ids, length), cut(labels, length), i) for i, (ids, labels) in enumerate(sequences) if keep(ids, length)
        ]
        packed = []
        for row in assign([len(ids) for ids, _, _ in cuts], length):
            parts, before = [], 0
            for at, number in enumerate(row):
                ids, labels, i = cuts[number]
                n = len(ids)
                mine = torch.full((n,), owner(i, at))
                parts.append([ids, label(labels, at), position(n, before), mine])
                before += n
            columns = [torch.cat(each) for each in zip(*parts, strict=True)]
            room = length - before
            packed.append(
                [torch.nn.functional.pad(x, (0, room), value=v) for x, v in zip(columns, fill(pad), strict=True)]
            )
        return tuple(torch.stack(each) for each in zip(*packed, strict=True))

    return pack_sequences


right = _packing()


def _next_fit(lengths, length):
    rows, used = [[]], 0
    for number, n in enumerate(lengths):
        if used + n > length:
            rows.append([])
            used = 0
        rows[-1].append(number)
        used += n
    return rows


def _best_fit(lengths, length):
    rows, used = [], []
    for number, n in enumerate(lengths):
        fits = [i for i, taken in enumerate(used) if taken + n <= length]
        if not fits:
            rows.append([])
            used.append(0)
        at = max(fits, key=used.__getitem__) if fits else len(rows) - 1
        rows[at].append(number)
        used[at] += n
    return rows


def _decreasing(lengths, length):
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [[order[i] for i in row] for row in _first_fit([lengths[i] for i in order], length)]


exercise.mistake("only the last row is tried", hint="An earlier row may still have room: the first that has.")(
    _packing(assign=_next_fit)
)
exercise.mistake("the tightest row is taken, not the first", hint="First fit: the first row that has room.")(
    _packing(assign=_best_fit)
)
exercise.mistake("the longest go first", hint="In the order of the list.")(_packing(assign=_decreasing))
exercise.mistake("each sequence has a row of its own", hint="That is padding. As long as there is room, go on.")(
    _packing(assign=lambda lengths, length: [[i] for i in range(len(lengths))])
)
exercise.mistake("a row is never filled to its last place", hint="used + n <= length fits.")(
    _packing(assign=lambda lengths, length: _first_fit(lengths, length, lambda taken, n, length: taken + n < length))
)
exercise.mistake(
    "the first token of a sequence is scored",
    hint="Inside the loss, labels move by one: the last token of the *other* conversation would have to predict it.",
)(_packing(label=lambda labels, at: labels))
exercise.mistake(
    "only the first token of a row isn't scored", hint="Each sequence in the row begins behind another: -100 there."
)(_packing(label=lambda labels, at: labels if at else torch.cat([torch.full_like(labels[:1], IGNORED), labels[1:]])))
exercise.mistake(
    "only the first token of a row is scored", hint="The first label of every sequence is -100, of the row's first too."
)(_packing(label=lambda labels, at: torch.cat([torch.full_like(labels[:1], IGNORED), labels[1:]]) if at else labels))
exercise.mistake("positions run on through the row", hint="For RoPE each sequence begins at position 0 again.")(
    _packing(position=lambda n, before: torch.arange(before, before + n))
)
exercise.mistake("positions begin at 1", hint="The first token has position 0.")(
    _packing(position=lambda n, before: torch.arange(1, n + 1))
)
exercise.mistake("owners are numbered within their row", hint="The number of the sequence in the list that was given.")(
    _packing(owner=lambda number, at: at)
)
exercise.mistake("owners begin at 1", hint="The first sequence of the list has number 0.")(
    _packing(owner=lambda number, at: number + 1)
)
exercise.mistake("padding belongs to sequence 0", hint="Padding is nobody's: -1. Sequence 0 would attend to it.")(
    _packing(fill=lambda pad: (pad, IGNORED, 0, 0))
)
exercise.mistake("padding is scored", hint="Labels at padding are -100.")(_packing(fill=lambda pad: (pad, pad, 0, -1)))
exercise.mistake("padding is always 0", hint="`pad` says which id it is.")(
    _packing(fill=lambda pad: (0, IGNORED, 0, -1))
)
exercise.mistake("positions of padding are -1", hint="0: an embedding of positions would have no row -1.")(
    _packing(fill=lambda pad: (pad, IGNORED, -1, -1))
)
exercise.mistake("labels are shifted by one", hint="The loss shifts them. The label of a place is its own token.")(
    lambda sequences, length, pad=0: (
        (out := right(sequences, length, pad))[0],
        torch.nn.functional.pad(out[1][:, 1:], (0, 1), value=IGNORED),
        *out[2:],
    )
)
exercise.mistake("padding has positions, too, from 0 on", hint="0 throughout.")(
    lambda sequences, length, pad=0: (
        *(out := right(sequences, length, pad))[:2],
        torch.where(out[3] < 0, (out[3] < 0).cumsum(-1) - 1, out[2]),
        out[3],
    )
)
exercise.mistake("what is too long loses its beginning", hint="Cut at the end: the question stays.")(
    _packing(cut=lambda x, length: x[-length:])
)


exercise.mistake("positions count the places of the row", hint="0 again in each sequence, and at padding.")(
    lambda sequences, length, pad=0: (
        *(out := right(sequences, length, pad))[:2],
        torch.arange(length).repeat(len(out[0]), 1),
        out[3],
    )
)
exercise.mistake("labels at padding are 0", hint="0 is a token: -100 is what the loss skips.")(
    _packing(fill=lambda pad: (pad, 0, 0, -1))
)
exercise.mistake("the labels are made from the ids anew", hint="Take the labels that are given: the question is -100.")(
    lambda sequences, length, pad=0: right([(ids, ids) for ids, _ in sequences], length, pad)
)


@exercise.mistake("what is too long is left out", hint="Its first `length` tokens are kept.")
def dropped(sequences, length, pad=0):
    fits = [(ids, labels) for ids, labels in sequences if len(ids) <= length]
    if not fits:
        return (torch.zeros(0, length, dtype=torch.int64),) * 4
    return _packing(keep=lambda ids, length: len(ids) <= length)(sequences, length, pad)


@exercise.mistake(
    "all is put into one line, which is cut into rows", hint="That tears conversations apart. Each stays in one row."
)
def chunked(sequences, length, pad=0):
    parts = []
    for number, (ids, labels) in enumerate(sequences):
        first = torch.full_like(labels[:1], IGNORED)
        parts.append([ids, torch.cat([first, labels[1:]]), torch.arange(len(ids)), torch.full_like(ids, number)])
    line = [torch.cat(each) for each in zip(*parts, strict=True)]
    room = -len(line[0]) % length
    filled = zip(line, (pad, IGNORED, 0, -1), strict=True)
    return tuple(torch.nn.functional.pad(x, (0, room), value=value).view(-1, length) for x, value in filled)


exercise.mistake("all four are int32", hint="int64: ids index a table, labels go into cross_entropy.")(
    lambda sequences, length, pad=0: tuple(x.int() for x in right(sequences, length, pad))
)


@exercise.mistake("the caller's labels are overwritten", hint="labels belongs to the caller: clone() it first.")
def overwritten(sequences, length, pad=0):
    for _, labels in sequences:
        labels[0] = IGNORED
    return right(sequences, length, pad)


@exercise.alternative
def by_places(sequences, length, pad=0):
    """Empty rows first, which are then written into."""
    rows, used = [], []
    for number, (ids, labels) in enumerate(sequences):
        n = min(len(ids), length)
        at = 0
        while at < len(rows) and used[at] + n > length:
            at += 1
        if at == len(rows):
            rows.append(torch.tensor([[pad], [IGNORED], [0], [-1]]).repeat(1, length))
            used.append(0)
        place = slice(used[at], used[at] + n)
        rows[at][0, place] = ids[:n]
        rows[at][1, place] = labels[:n]
        rows[at][1, used[at]] = IGNORED
        rows[at][2, place] = torch.arange(n)
        rows[at][3, place] = number
        used[at] += n
    return torch.stack(rows, 1).unbind(0)


exercise.alternative(right)
