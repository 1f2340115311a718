"""`replay_batches(n_new, n_old, batch_size, share, generator)`: Which examples each batch takes, new and old ones."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "replay_batches",
    points=4,
    forbid=["torch.utils.data.RandomSampler"],
    no_gradient="it chooses examples",
    hints=[
        "How many old ones does each batch hold, how many new ones, and how many batches are that?",
        "The old ones are one long line: a shuffled pass over all of them, then another, as many as are needed. Each "
        "batch takes the next ones.",
        "k = round(share * batch_size); new = torch.randperm(n_new, generator=generator).split(batch_size - k); a line "
        "of torch.cat([torch.randperm(n_old, generator=generator) for _ in range(passes)]); batch i takes line[i * k : "
        "(i + 1) * k].",
    ],
)


@exercise.cases
def mixtures(g):
    def seed():
        return pick(g, 0, 10**6)

    yield case(40, 30, 8, 0.25, seed(), label="a quarter is old")
    yield case(23, 11, 6, 0.5, seed(), label="half is old, more than once around")
    yield case(17, 50, 5, 0.5, seed(), label="2.5 of five: 2")
    yield case(30, 21, 10, 0.37, seed(), label="3.7 of ten: 4")
    yield case(30, 21, 10, 0.33, seed(), label="3.3 of ten: 3")
    yield case(20, 15, 7, 0.0, seed(), label="no old ones")
    yield case(12, 3, 8, 0.75, seed(), label="a batch needs more old ones than there are")
    yield case(4, 30, 16, 0.25, seed(), label="fewer new ones than a batch takes")
    yield case(1, 1, 2, 0.5, seed(), label="one of each")
    yield case(15, 1, 4, 0.25, seed(), label="a single old one")
    yield case(500, 64, 32, 0.125, seed(), label="five hundred")


@exercise.probe
def batches(replay_batches, n_new, n_old, batch_size, share, seed, after=False):
    """The batches of a generator with this seed, and whether a second one with the same seed gives the same ones.

    `after` asks for the number that comes next from the generator.
    """
    import torch

    generator = torch.Generator()

    def made(noise):
        torch.manual_seed(noise)
        generator.manual_seed(seed)
        return [(new, old) for new, old in replay_batches(n_new, n_old, batch_size, share, generator)]

    def alike(a, b):
        both = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        return torch.equal(a, b) if both else type(a) is type(b) and a == b

    first, again = made(1), made(2)
    if after:
        return float(torch.rand(1, generator=generator))
    return {
        "batches": first,
        "the same again": len(first) == len(again)
        and all(alike(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)),
    }


@exercise.oracle
def torchs_samplers(n_new, n_old, batch_size, share, seed):
    """torch's own samplers. (One of all n examples draws a second order that nobody sees, so each has a generator.)"""
    from torch.utils.data import BatchSampler, RandomSampler

    first, generator = (torch.Generator().manual_seed(seed) for _ in range(2))
    k, _ = round(share * batch_size), torch.randperm(n_new, generator=generator)
    new = list(BatchSampler(RandomSampler(range(n_new), generator=first), batch_size - k, drop_last=False))
    old = list(RandomSampler(range(n_old), num_samples=k * len(new), generator=generator)) if k else []
    pairs = [
        (torch.tensor(some), torch.tensor(old[i * k : i * k + k], dtype=torch.int64)) for i, some in enumerate(new)
    ]
    return {"batches": pairs, "the same again": True}


@exercise.law("Indices are int64 tensors")
def int64(out, one, call):
    kinds = {x.dtype if isinstance(x, torch.Tensor) else type(x) for pair in out["batches"] for x in pair}
    return kinds == {torch.int64} or f"found {kinds}"


@exercise.law("Nothing is drawn from the generator but what is needed")
def draws_no_more(out, one, call):
    n_new, n_old, batch_size, share, seed = one.args
    generator = torch.Generator().manual_seed(seed)
    right(n_new, n_old, batch_size, share, generator)
    return call(*one.args, after=True) == float(torch.rand(1, generator=generator))


@exercise.law("Every new example is seen just once", essential=True)
def each_once(out, one, call):
    seen = torch.cat([new for new, _ in out["batches"]])
    return sorted(seen.tolist()) == list(range(one.args[0]))


@exercise.law("No old example comes again before all others have come", essential=True)
def in_turn(out, one, call):
    counts = torch.zeros(one.args[1], dtype=torch.int64)
    for _, old in out["batches"]:
        counts += torch.bincount(old, minlength=one.args[1])
        if int(counts.max() - counts.min()) > 1:
            return "one has come twice more often than another"
    return True


def _batches(
    count=lambda share, size: round(share * size),
    fresh=lambda size, k: size - k,
    order=lambda n, g: torch.randperm(n, generator=g),
    line=lambda n, k, batches, g: torch.cat([torch.randperm(n, generator=g) for _ in range(-(-k * batches // n))]),
    take=lambda line, i, k, new, size: line[i * k : i * k + k],
    end=list,
    first_old=False,
):
    """The batches from their parts; `line` gives all old indices in the order in which they are taken."""

    def replay_batches(n_new, n_old, batch_size, share, generator):
        k = count(share, batch_size)
        size = max(fresh(batch_size, k), 1)
        number = -(-n_new // size)

        def old_ones():
            return line(n_old, k, number, generator) if k else torch.zeros(0, dtype=torch.int64)

        if first_old:
            old = old_ones()
            new = order(n_new, generator)
        else:
            new = order(n_new, generator)
            old = old_ones()
        return end([(some, take(old, i, k, some, size)) for i, some in enumerate(new.split(size))])

    return replay_batches


right = _batches()

exercise.mistake("the number of old ones is rounded down", hint="round(share * batch_size).")(
    _batches(count=lambda share, size: int(share * size))
)
exercise.mistake("the number of old ones is rounded up", hint="round(share * batch_size).")(
    _batches(count=lambda share, size: min(int(-(-share * size // 1)), size - 1))
)
exercise.mistake("halves are rounded up", hint="Python's round takes a half to the even number: 2.5 is 2.")(
    _batches(count=lambda share, size: int(share * size + 0.5))
)
exercise.mistake("old ones are added on top of a full batch", hint="A batch has batch_size examples, old and new.")(
    _batches(fresh=lambda size, k: size)
)
exercise.mistake("share is that of the new ones", hint="`share` is the old ones' part of a batch.")(
    _batches(count=lambda share, size: min(size - round(share * size), size - 1))
)
exercise.mistake(
    "old ones are drawn with replacement",
    hint="randint may give one twice and another never. Shuffled passes: randperm.",
)(_batches(line=lambda n, k, batches, g: torch.randint(n, (k * batches,), generator=g)))
exercise.mistake(
    "each batch draws its old ones afresh, so that some come often and some never",
    hint="One line of old ones for the whole epoch: the next batch goes on where the last one stopped.",
)(
    _batches(
        line=lambda n, k, batches, g: torch.cat(
            [torch.cat([torch.randperm(n, generator=g) for _ in range(-(-k // n))])[:k] for _ in range(batches)]
        )
    )
)
exercise.mistake("every batch holds the same old ones", hint="The next ones in line: line[i * k : (i + 1) * k].")(
    _batches(take=lambda line, i, k, new, size: line[:k])
)
exercise.mistake("every pass over the old ones has the same order", hint="A new randperm for each pass.")(
    _batches(line=lambda n, k, batches, g: torch.randperm(n, generator=g).repeat(-(-k * batches // n)))
)
exercise.mistake(
    "what is left of a pass when it doesn't fill a batch is thrown away",
    hint="A batch may take the rest of one pass and the start of the next.",
)(
    _batches(
        line=lambda n, k, batches, g: torch.cat(
            [torch.randperm(n, generator=g)[: max(n // k * k, min(n, k))] for _ in range(batches * k)]
        )
    )
)
exercise.mistake("when all old ones have come, none come any more", hint="Begin another shuffled pass.")(
    _batches(line=lambda n, k, batches, g: torch.randperm(n, generator=g))
)
exercise.mistake("new ones come in their order, not shuffled", hint="torch.randperm(n_new, generator=generator).")(
    _batches(order=lambda n, g: torch.arange(n))
)
exercise.mistake("old ones come in their order, not shuffled", hint="torch.randperm(n_old, generator=generator).")(
    _batches(line=lambda n, k, batches, g: torch.arange(n).repeat(-(-k * batches // n)))
)
exercise.mistake("old ones are drawn before the new ones", hint="The generator shuffles the new ones first.")(
    _batches(first_old=True)
)
exercise.mistake("the generator isn't used for the new ones", hint="generator=generator, in every randperm.")(
    _batches(order=lambda n, g: torch.randperm(n))
)
exercise.mistake("the generator isn't used for the old ones", hint="generator=generator, in every randperm.")(
    _batches(line=lambda n, k, batches, g: torch.cat([torch.randperm(n) for _ in range(-(-k * batches // n))]))
)
exercise.mistake("the last batch is dropped if it has fewer new ones", hint="Every new example is seen.")(
    lambda n_new, n_old, batch_size, share, generator: [
        (new, old)
        for new, old in right(n_new, n_old, batch_size, share, generator)
        if len(new) == batch_size - round(share * batch_size)
    ]
)
exercise.mistake("a last batch with fewer new ones has fewer old ones", hint="As many old ones as the others.")(
    _batches(take=lambda line, i, k, new, size: line[i * k : i * k + round(k * len(new) / size)])
)
exercise.mistake("a last batch with fewer new ones is filled up with old ones", hint="As many old ones as the others.")(
    _batches(
        line=lambda n, k, batches, g: torch.cat(
            [torch.randperm(n, generator=g) for _ in range(batches * k + size_of(n))]
        ),
        take=lambda line, i, k, new, size: line[i * k : i * k + k + size - len(new) if k else i * k],
    )
)


@exercise.mistake("a pass is drawn that nobody needs", hint="Only if k > 0, and only as many passes as are taken from.")
def draws_ahead(n_new, n_old, batch_size, share, generator):
    found = right(n_new, n_old, batch_size, share, generator)
    torch.randperm(n_old, generator=generator)
    return found


exercise.mistake("at least one old one is taken", hint="round(share * batch_size) may be 0.")(
    _batches(count=lambda share, size: max(round(share * size), 1))
)
exercise.mistake("the old ones come first in each pair", hint="(new, old).")(
    _batches(end=lambda pairs: [(old, new) for new, old in pairs])
)
exercise.mistake("old indices start behind the new ones", hint="Each kind is counted from 0.")(
    lambda n_new, *given: [(new, old + n_new) for new, old in right(n_new, *given)]
)
exercise.mistake(
    "where no old ones are wanted, `old` holds no whole numbers", hint="torch.tensor([]) is float32: dtype=torch.int64."
)(_batches(end=lambda pairs: [(new, old if len(old) else torch.tensor([])) for new, old in pairs]))
exercise.mistake("indices come back in lists, not in tensors", hint="Pairs of int64 tensors, as randperm gives them.")(
    _batches(end=lambda pairs: [(new.tolist(), old.tolist()) for new, old in pairs])
)
exercise.mistake("the tensors are int32", hint="int64, as randperm gives them.")(
    _batches(end=lambda pairs: [(new.int(), old.int()) for new, old in pairs])
)


def size_of(n):
    return 2 + 16 // n


@exercise.alternative
def one_by_one(n_new, n_old, batch_size, share, generator):
    k = round(share * batch_size)
    new, waiting, found = torch.randperm(n_new, generator=generator).tolist(), [], []
    while new:
        some, new = new[: batch_size - k], new[batch_size - k :]
        while len(waiting) < k:
            waiting += torch.randperm(n_old, generator=generator).tolist()
        old, waiting = waiting[:k], waiting[k:]
        found.append((torch.tensor(some), torch.tensor(old, dtype=torch.int64)))
    return found


exercise.alternative(right)
