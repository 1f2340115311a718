"""`get_batch(data, n, rows, generator)`

Pieces of a text from random places, and for each of their tokens the next one.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import integer, only

exercise = Draft(
    "get_batch",
    points=2,
    no_gradient="ids are whole numbers",
    hints=[
        "A row needs n + 1 tokens: n inputs, and one more for the last target. Where is the last place for that?",
        "starts = torch.randint(len(data) - n, (rows,), generator=generator): the upper end isn't drawn.",
        "places = starts[:, None] + torch.arange(n); return data[places], data[places + 1]",
    ],
)


@exercise.cases
def batch_cases(g):
    def tokens(length, high=500):
        return torch.randint(high, (length,), generator=g)

    def seed():
        return integer(g, 1, 10_000)

    yield case(tokens(1_000), 16, 8, seed(), label="a text of 1,000 tokens")
    yield case(torch.arange(9), 5, 40, seed(), label="4 places to start from, 40 rows")
    yield case(torch.arange(6), 5, 3, seed(), label="one place to start from")
    yield case(tokens(2), 1, 7, seed(), label="two tokens, pieces of one")
    yield case(tokens(300), 1, 5, seed(), label="pieces of one token")
    yield case(tokens(50), 12, 1, seed(), label="one row")
    yield case(tokens(37), 7, 60, seed(), calls=1, label="many rows")
    yield case(tokens(70_000), 9, 4, seed(), label="a long text")
    yield case(tokens(60, 2), 9, 6, seed(), calls=3, label="three batches in a row")
    yield case(
        tokens(200 + integer(g, 0, 50)), 5 + integer(g, 0, 9), 2 + integer(g, 0, 9), seed(), label="random sizes"
    )


@exercise.oracle
def cut_out(data, n, rows, seed, calls=2):
    """One slice after the other."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(calls):
        starts = torch.randint(len(data) - n, (rows,), generator=generator).tolist()
        pairs = [(data[i : i + n], data[i + 1 : i + 1 + n]) for i in starts]
        found.append([torch.stack(side) for side in zip(*pairs, strict=True)])
    return found


@exercise.probe
def batches(get_batch, data, n, rows, seed, calls=2):
    """What some calls in a row give with one generator, while torch's own generator stands somewhere else."""
    import torch

    torch.manual_seed(seed + 1)
    generator = torch.Generator().manual_seed(seed)
    return [list(get_batch(data, n, rows, generator)) for _ in range(calls)]


def _counting(one, call):
    """The starts of 600 rows that are drawn from 0, 1, 2, …, and how many places there are."""
    n = min(one.args[1], 6)
    inputs, targets = call(torch.arange(n + 7), n, 600, one.args[3], calls=1)[0]
    return inputs, targets, 7


@exercise.law("Every target is the token after its input")
def target_is_the_next(out, one, call):
    inputs, targets, _ = _counting(one, call)
    return bool((targets == inputs + 1).all()) or "in a text that counts 0, 1, 2, … a target isn't its input plus 1"


@exercise.law("Each row is a piece of the text")
def rows_are_pieces(out, one, call):
    """Each row holds neighbors, in order."""
    inputs, _, _ = _counting(one, call)
    return bool((inputs == inputs[:, :1] + torch.arange(inputs.shape[1])).all())


@exercise.law("All starts occur, the last legal one as well")
def starts_everywhere(out, one, call):
    inputs, _, places = _counting(one, call)
    missing = set(range(places)) - set(inputs[:, 0].tolist())
    return not missing or f"of the starts 0 to {places - 1}, never: {', '.join(map(str, sorted(missing)))}"


@exercise.law("The given generator decides, and moves on")
@only("a text of 1,000 tokens", "one row")
def follows_the_generator(out, one, call):
    """One seed, the same batches; and the second batch is another one."""
    data, seed = torch.arange(1_000), one.args[3]
    first, again, other = (call(data, 3, 4, s)[0][0] for s in (seed, seed, seed + 77))
    if not torch.equal(first, again) or torch.equal(first, other):
        return "the batches should depend on the generator, and on nothing else"
    one_batch, next_batch = (inputs for inputs, _ in call(data, 3, 4, seed))
    return not torch.equal(one_batch, next_batch) or "the second batch is the first one again"


@exercise.law("Ids are int64")
def ids_are_int64(out, one, call):
    other = [side.dtype for pair in out for side in pair if side.dtype is not torch.int64]
    return not other or f"ids should be int64, and are {other[0]}"


def _batch(high=lambda length, n: length - n, first=0, second=1, spread=None, shape=None):
    """A batch in parts: the end of the starts' range, where inputs and targets begin, and what is done to the rows."""

    def get(data, n, rows, generator):
        starts = torch.randint(max(1, high(len(data), n)), (rows,), generator=generator)
        starts = spread(starts, len(data), n) if spread else starts
        places = starts[:, None] + torch.arange(n)
        made = data[places + first], data[(places + second) % len(data) if second > 1 else places + second]
        return tuple(map(shape, made)) if shape else made

    return get


exercise.mistake(
    "any token may be a start", hint="A start too close to the end leaves no room for n tokens and one target more."
)(_batch(high=lambda length, n: length))

exercise.mistake(
    "the range of the starts is one too long",
    hint="The last target is data[start + n]: the last legal start is len(data) - n - 1.",
)(_batch(high=lambda length, n: length - n + 1))

exercise.mistake("the range of the starts is one too short", hint="torch.randint leaves out its upper end itself.")(
    _batch(high=lambda length, n: length - n - 1)
)

exercise.mistake(
    "the targets are the inputs", hint="Then copying is all that is to be learnt. Targets begin one token later."
)(_batch(second=0))

exercise.mistake("the targets are shifted by two", hint="By one: the next token.")(
    _batch(high=lambda length, n: length - n, second=2)
)

exercise.mistake("the targets are the tokens before", hint="The token *after* each input.")(_batch(first=1, second=0))


@exercise.mistake(
    "the targets are the n tokens after the inputs", hint="Each input has its own target: the very next token."
)
def batch_next_piece(data, n, rows, generator):
    """The targets are the n tokens after the inputs."""
    starts = torch.randint(max(1, len(data) - 2 * n + 1), (rows, 1), generator=generator)
    places = starts + torch.arange(n)
    return data[places], data[(places + n) % len(data)]


batch = _batch()


@exercise.mistake(
    "there is one target a row",
    hint="Every one of the n tokens has a target; that is what makes a GPT's training efficient.",
)
def batch_last_only(data, n, rows, generator):
    """One target a row: the token after the piece."""
    inputs, targets = batch(data, n, rows, generator)
    return inputs, targets[:, -1]


exercise.mistake(
    "the starts are multiples of n", hint="Then the same pieces come back in every epoch. Any place may be a start."
)(_batch(spread=lambda starts, length, n: starts - starts % n))

exercise.mistake("all rows begin at one start", hint="One start a row: randint(…, (rows,)).")(
    _batch(spread=lambda starts, length, n: starts[:1].expand_as(starts))
)

exercise.mistake(
    "the rows stand one token apart", hint="Independent starts; neighbors would say the same thing over and over."
)(_batch(spread=lambda starts, length, n: (starts[0] + torch.arange(len(starts))) % (length - n)))


@exercise.mistake(
    "the end of the text goes on at its beginning",
    hint="Nobody wrote that transition. Draw the starts so that it never happens.",
)
def batch_circular(data, n, rows, generator):
    """Every token may be a start: what runs over the end goes on at the beginning."""
    places = torch.randint(len(data), (rows, 1), generator=generator) + torch.arange(n)
    return data[places % len(data)], data[(places + 1) % len(data)]


@exercise.mistake("the tokens of a row come from anywhere", hint="A row is one piece of the text: n neighbors.")
def batch_of_single_tokens(data, n, rows, generator):
    """n tokens from anywhere, each with its next one."""
    places = torch.randint(len(data) - 1, (rows, n), generator=generator)
    return data[places], data[places + 1]


exercise.mistake("the batch is flat", hint="Two dimensions, [rows, n].")(_batch(shape=lambda x: x.flatten()))

exercise.mistake("the batch is transposed", hint="[rows, n]: a row is a piece of the text.")(
    _batch(shape=lambda x: x.T)
)

exercise.mistake("the tokens are int32", hint="Ids stay int64, as data has them.")(_batch(shape=lambda x: x.int()))

exercise.mistake("the tokens are floats", hint="Ids stay int64: they index an embedding.")(
    _batch(shape=lambda x: x.float())
)


@exercise.mistake("torch's own generator is used", hint="Hand the generator on: torch.randint(…, generator=generator).")
def batch_from_global(data, n, rows, generator):
    return batch(data, n, rows, None)


@exercise.mistake(
    "the generator is seeded again at each call", hint="Then all batches are one and the same. Use it as it is."
)
def batch_reseeded(data, n, rows, generator):
    return batch(data, n, rows, generator.manual_seed(0))


@exercise.mistake(
    "each call starts from a fresh generator of the same seed",
    hint="Then all batches are one and the same. Use the one that you were given.",
)
def batch_begins_anew(data, n, rows, generator):
    """A fresh generator of the same seed at each call."""
    return batch(data, n, rows, torch.Generator().manual_seed(generator.initial_seed()))


exercise.alternative(batch)


@exercise.alternative
def batch_of_slices(data, n, rows, generator):
    starts = torch.randint(0, len(data) - n, (rows,), generator=generator).tolist()
    return torch.stack([data[i : i + n] for i in starts]), torch.stack([data[i + 1 : i + n + 1] for i in starts])


@exercise.alternative
def batch_unfolded(data, n, rows, generator):
    """All pieces as a view, of which some are taken; one token more, cut twice."""
    pieces = data.unfold(0, n + 1, 1)
    chosen = pieces[torch.randint(high=len(pieces), size=(rows,), generator=generator)]
    return [chosen[:, :-1], chosen[:, 1:]]
