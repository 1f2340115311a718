"""`corrupt_spans(ids, noise, first_sentinel)`: What T5's encoder reads, and what its decoder has to write."""

from __future__ import annotations

import itertools

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.decoder_only.shared import TOP, token_ids

exercise = Draft(
    "corrupt_spans",
    points=3,
    forbid=["transformers"],
    no_gradient="ids are whole numbers",
    hints=[
        "Walk through the text. When does a new span begin, and what do inputs and targets get at that moment?",
        "starts = noise & ~before, where `before` is noise moved one to the right. The number of the span a token "
        "belongs to is starts.cumsum(0) - 1.",
        "Loop over zip(ids.tolist(), noise.tolist()): where a span starts, append first_sentinel - k to both lists; a "
        "noise token goes to the targets, any other to the inputs. At the end append the next sentinel to the targets.",
    ],
)


@exercise.cases
def span_cases(g):
    def first():
        return int(torch.randint(250, 32_100, (), generator=g))

    def one(marks, label):
        noise = torch.tensor([mark == "#" for mark in marks])
        return case(token_ids(g, len(noise)), noise, first(), label=label)

    yield one("..##.#...", "two spans inside")
    yield one("##..#.###.", "noise at the beginning")
    yield one(".#...####", "noise at the end")
    yield one("#.#.#", "noise at both ends, single tokens")
    yield one(".....", "no noise")
    yield one("####", "nothing but noise")
    yield one("#", "one token, missing")
    yield one(".", "one token, kept")
    for n, share in ((24, 0.3), (31, 0.6)):
        yield case(token_ids(g, n), torch.rand(n, generator=g) < share, first(), label=f"{n} tokens, drawn by chance")
    # T5 itself has a hundred sentinels, and whoever makes a table of them has no more.
    yield one(".#" * 120 + ".", "more than a hundred spans")


@exercise.oracle
def spans_by_grouping(ids, noise, first_sentinel):
    """T5's span corruption as in figure 2 of the paper, by itertools.groupby."""
    inputs, targets, sentinel = [], [], first_sentinel
    for missing, group in itertools.groupby(zip(ids.tolist(), noise.tolist(), strict=True), key=lambda pair: pair[1]):
        tokens = [token for token, _ in group]
        if missing:
            inputs.append(sentinel)
            targets += [sentinel, *tokens]
            sentinel -= 1
        else:
            inputs += tokens
    return torch.tensor(inputs), torch.tensor([*targets, sentinel])


@exercise.law("Put back into the gaps, the targets give the text again")
def gaps_can_be_filled(out, one, call):
    ids, _, first = one.args
    inputs, targets = (x.tolist() for x in out)
    parts, current = {}, None
    for token in targets:
        if token > TOP:
            current = parts.setdefault(token, [])
        elif current is None:
            return "the targets don't begin with a sentinel"
        else:
            current.append(token)
    filled = itertools.chain.from_iterable(parts.get(token, []) if token > TOP else [token] for token in inputs)
    return list(filled) == ids.tolist()


def _spans(noise):
    return int((noise & ~torch.cat([noise.new_zeros(1), noise[:-1]])).sum())


@exercise.law("Inputs and targets together have n + 2 tokens a span + 1")
def lengths_add_up(out, one, call):
    ids, noise, _ = one.args
    return len(out[0]) + len(out[1]) == len(ids) + 2 * _spans(noise) + 1


@exercise.law("Sentinels count down, and the targets have one more")
def sentinels_count_down(out, one, call):
    count, first = _spans(one.args[1]), one.args[2]
    inputs, targets = (x[x > TOP].tolist() for x in out)
    wanted = list(range(first, first - count - 1, -1))
    return (inputs, targets) == (wanted[:count], wanted)


@exercise.law("Integer tensors of one dimension")
def spans_are_int64(out, one, call):
    return all(x.dtype is torch.int64 and x.dim() == 1 for x in out) or "not two int64 tensors of one dimension"


def _corrupting(
    step=-1,
    offset=0,
    by_token=False,
    last=1,
    shown=True,
    announced=True,
    behind=False,
    exchanged=False,
    whole=False,
    open_start=False,
    closed_inputs=False,
    then=lambda first, spans: [],
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
        close = close + then(first_sentinel, len(parts))
        return torch.tensor(inputs, dtype=torch.int64), torch.tensor(targets + close, dtype=torch.int64)

    return corrupt_spans


exercise.mistake(
    "every missing token gets a sentinel of its own",
    hint="Neighbors that are missing together form one span with one sentinel.",
)(_corrupting(by_token=True))

exercise.mistake(
    "the sentinels count upwards", hint="T5's <extra_id_0> has the highest id: sentinel k is first_sentinel - k."
)(_corrupting(step=1))

exercise.mistake(
    "every span has the same sentinel",
    hint="Then nobody knows which gap is meant. The k-th span has first_sentinel - k.",
)(_corrupting(step=0))

exercise.mistake(
    "the sentinel that ends the targets is missing",
    hint="One more sentinel closes the targets: it says that no gap is left.",
)(_corrupting(last=0))

exercise.mistake(
    "the targets end with the last span's sentinel once more",
    hint="The closing sentinel is the next one that hasn't been used.",
)(_corrupting(last=2))

exercise.mistake(
    "the inputs end with the closing sentinel, too",
    hint="In the inputs a sentinel stands for a gap, and there is none at the end.",
)(_corrupting(closed_inputs=True))

exercise.mistake(
    "the gaps are left out of the inputs without a trace", hint="A sentinel shows where something is missing."
)(_corrupting(shown=False))

exercise.mistake(
    "the sentinels are missing from the targets",
    hint="Each span is announced by its sentinel, else its end can't be told.",
)(_corrupting(announced=False))

exercise.mistake(
    "the sentinel comes after its span in the targets",
    hint="First the sentinel, then the tokens that belong into that gap.",
)(_corrupting(behind=True))

exercise.mistake("noise and text are exchanged", hint="True marks what is to be guessed.")(_corrupting(exchanged=True))

exercise.mistake(
    "the targets are the whole text",
    hint="That is BART's task. T5 writes the missing spans only, which is far shorter.",
)(_corrupting(whole=True, last=0))

exercise.mistake("the first sentinel isn't used", hint="Sentinel number 0 is first_sentinel itself.")(
    _corrupting(offset=1)
)

exercise.mistake("the sentinels begin one too high", hint="Sentinel number 0 is first_sentinel itself.")(
    _corrupting(offset=-1)
)

exercise.mistake(
    "a sentinel is left out before the one that ends the targets",
    hint="The closing sentinel is the very next one: that of the last span, minus 1.",
)(_corrupting(last=0, then=lambda first, spans: [first - spans - 1]))

exercise.mistake(
    "the first sentinel ends the targets once more", hint="The closing sentinel is the next one that hasn't been used."
)(_corrupting(last=0, then=lambda first, spans: [first]))

spans = _corrupting()

exercise.mistake("inputs and targets are exchanged", hint="(inputs, targets), in this order.")(
    lambda *args: spans(*args)[::-1]
)

exercise.mistake("the ids are int32", hint="torch.tensor of Python ints gives int64: keep it.")(
    lambda *args: tuple(x.int() for x in spans(*args))
)

exercise.mistake(
    "the sentinels of the targets are one further than those of the inputs",
    hint="A gap and its tokens share a sentinel: count down after both lists have got it.",
)(lambda ids, noise, first: (spans(ids, noise, first)[0], spans(ids, noise, first - 1)[1]))

exercise.mistake(
    "an end-of-text token is added to the targets", hint="T5's training does so later. Here the sentinel is the end."
)(_corrupting(then=lambda first, spans: [1]))


@exercise.mistake("the spans stand in the targets in reverse", hint="From left to right.")
def spans_reversed(ids, noise, first_sentinel):
    inputs, targets = spans(ids, noise, first_sentinel)
    starts = [i for i, token in enumerate(targets.tolist()) if token > 90] + [len(targets)]
    parts = [targets[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    return inputs, torch.cat([*parts[-2::-1], parts[-1]])


@exercise.mistake(
    "a span that reaches the end of the text is lost",
    hint="The last token may be noise, too: close that span after the loop.",
)
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


exercise.mistake(
    "a span at the very beginning gets no sentinel",
    hint="A span begins where noise is True and the place before isn't, and place 0 has none before it.",
)(_corrupting(open_start=True))


@exercise.mistake(
    "the text between the gaps takes sentinels in the targets, even before the first",
    hint=("T5's own code does so, but it never begins with noise. Here targets begin with the first span's sentinel."),
)
def spans_targets_like_t5(ids, noise, first_sentinel):
    """Each half replaces the other's runs by sentinels."""
    inputs, _ = spans(ids, noise, first_sentinel)
    targets, _ = spans(ids, ~noise, first_sentinel)
    return inputs, targets


exercise.alternative(spans)


@exercise.alternative
def spans_by_cumsum(ids, noise, first_sentinel):
    """Without a loop: the rows of two tables, one column a token, and those kept that are wanted."""
    before = torch.nn.functional.pad(noise, (1, 0))[:-1]
    starts = noise & ~before
    sentinels = first_sentinel + 1 - starts.cumsum(0)
    table = torch.stack([sentinels, ids], 1)
    inputs = torch.where(starts, sentinels, ids)[~noise | starts]
    targets = table[torch.stack([starts, noise], 1)]
    return inputs, torch.cat([targets, torch.tensor([first_sentinel]) - starts.sum()])


@exercise.alternative
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
