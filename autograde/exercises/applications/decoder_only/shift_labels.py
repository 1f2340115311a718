"""`shift_labels(ids, real, kind, start, pad)`

What a decoder reads, and on which token each of its positions is scored.
"""

from __future__ import annotations

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case
from autograde.exercises.applications.decoder_only.shared import IGNORED, VOCABULARY, token_ids

exercise = Draft(
    "shift_labels",
    points=2,
    forbid=["transformers"],
    no_gradient="ids are whole numbers",
    hints=[
        "Write the row twice, one below the other, so that below each token stands the next one. Which end is empty?",
        "labels = torch.full_like(ids, -100); labels[:, :-1] = ids[:, 1:], where real[:, 1:]. For an encoder-decoder "
        "the *inputs* move instead, to the right.",
        "inputs = torch.full_like(ids, start); inputs[:, 1:] = torch.where(real, ids, pad)[:, :-1]; labels = "
        "ids.masked_fill(~real, -100)",
    ],
)


@exercise.cases
def shift_cases(g):
    def one(kind, lengths, n, label, side="right", under=None):
        """`under` is what stands under the padding: the pad id, or something else."""
        place, lengths = torch.arange(n), torch.tensor(lengths)[:, None]
        real = place < lengths if side == "right" else place >= n - lengths
        ids, (start, pad) = token_ids(g, *real.shape), torch.randperm(10, generator=g)[:2].tolist()
        ids[:, n // 2] = pad  # the id of the padding as a real token: an end mark inside
        return case(ids.masked_fill(~real, pad if under is None else under), real, kind, start, pad, label=label)

    for kind in ("decoder", "encoder-decoder"):
        yield one(kind, [6], 6, f"{kind}, one row without padding")
        yield one(kind, [7, 4, 6], 7, f"{kind}, padding on the right")
        yield one(kind, [3, 8, 5], 8, f"{kind}, padding on the left", side="left")
        yield one(kind, [5, 2], 5, f"{kind}, other ids under the padding", under=55)
        yield one(kind, [1, 1], 1, f"{kind}, one token")
        yield one(kind, [1, 5], 5, f"{kind}, a row of one token")
        yield one(kind, [150, 170, 130], 170, f"{kind}, more than a hundred tokens")
    for kind in ("encoder", "Decoder", "", "decoder-only", "dec"):
        yield one(kind, [4, 3], 4, f"an unknown kind, {kind!r}")


@exercise.oracle
def transformers_shift(ids, real, kind, start, pad):
    """What transformers' own loss scores each position on, read off its gradient; BART's shift for what is read."""
    labels = ids.masked_fill(~real, IGNORED)
    if kind == "encoder-decoder":
        shift_tokens_right = borrowed("transformers.models.bart.modeling_bart", "shift_tokens_right")
        return shift_tokens_right(labels, pad, start), labels
    if kind != "decoder":
        return "ValueError"
    loss = borrowed("transformers.loss.loss_utils", "ForCausalLMLoss")
    with torch.enable_grad():
        logits = torch.zeros(*ids.shape, VOCABULARY, requires_grad=True)
        loss(logits, labels, VOCABULARY, num_items_in_batch=1).backward()
    steepest = logits.grad.min(-1)  # softmax - one-hot is negative at the label alone, and 0 where nothing is scored
    return ids.clone(), steepest.indices.masked_fill(steepest.values >= 0, IGNORED)


@exercise.probe
def shift_or_refusal(shift_labels, ids, real, kind, start, pad):
    """The two tensors; for an unknown kind the name of the error that is raised, or that there was none."""
    known = kind in ("decoder", "encoder-decoder")
    try:
        made = shift_labels(ids, real, kind, start, pad)
    except NotImplementedError:
        raise
    except Exception as error:
        if known:
            raise
        return "ValueError" if isinstance(error, ValueError) else type(error).__name__
    return made if known else "no error"


def _shifted(one):
    return one.args[2] in ("decoder", "encoder-decoder")


@exercise.law("Every real token is a label once, but for a decoder's first column")
def every_token_counts(out, one, call):
    if not _shifted(one):
        return None
    ids, real, kind = one.args[:3]
    wanted = [row[keep].tolist() for row, keep in zip(ids, real, strict=True)]
    if kind == "decoder":
        wanted = [row[keep].tolist() for row, keep in zip(ids[:, 1:], real[:, 1:], strict=True)]
    return [row[row != IGNORED].tolist() for row in out[1]] == wanted


@exercise.law("What a position is scored on, the next position reads")
def next_reads_label(out, one, call):
    if not _shifted(one):
        return None
    inputs, labels = out
    scored = labels[:, :-1] != IGNORED
    return bool((inputs[:, 1:] == labels[:, :-1])[scored].all()) and inputs.shape == labels.shape


@exercise.law("The last token is never read by an encoder-decoder")
def last_is_not_read(out, one, call):
    ids, _, kind, start, _ = one.args
    if kind != "encoder-decoder":
        return None
    other = ids.clone()
    other[:, -1] += 1
    if not bool((out[0][:, 0] == start).all()):
        return "the inputs don't begin with the start token"
    return torch.equal(call(other, *one.args[1:])[0], out[0])


@exercise.law("Inputs and labels are int64")
def shifted_are_int64(out, one, call):
    return all(x.dtype is torch.int64 for x in out) if _shifted(one) else None


@exercise.law("An unknown kind is a ValueError")
def kind_is_checked(out, one, call):
    return None if _shifted(one) else out == "ValueError"


def _scored(ids, real):
    return ids.masked_fill(~real, IGNORED)


def _known(kind):
    if kind not in ("decoder", "encoder-decoder"):
        raise ValueError(kind)


def _left(x, fill):
    return torch.cat([x[:, 1:], torch.full_like(x[:, :1], fill)], 1)


def right_decoder(ids, real, start, pad):
    return ids.clone(), _left(_scored(ids, real), IGNORED)


def _right(x, fill):
    return torch.cat([torch.full_like(x[:, :1], fill), x[:, :-1]], 1)


def right_half(ids, real, start, pad):
    return _right(ids.masked_fill(~real, pad), start), _scored(ids, real)


def _shifting(decoder=right_decoder, half=right_half, unknown=None):
    """`shift_labels` with one kind exchanged. Each kind is a function of (ids, real, start, pad)."""

    def shift_labels(ids, real, kind, start, pad):
        if unknown is None:
            _known(kind)
        return (half if kind == "encoder-decoder" else decoder)(ids, real, start, pad)

    return shift_labels


def _labels(make):
    """A decoder with other labels."""
    return _shifting(lambda ids, real, start, pad: (ids.clone(), make(ids, real, pad)))


exercise.mistake(
    "labels aren't shifted: each position is scored on the token it reads",
    hint="A model learns that in a second: it copies. Position i is scored on token i + 1.",
)(_labels(lambda ids, real, pad: _scored(ids, real)))

exercise.mistake(
    "the decoder's labels are shifted the wrong way", hint="The label of place i is ids[:, i + 1], what comes next."
)(_labels(lambda ids, real, pad: _right(_scored(ids, real), IGNORED)))

exercise.mistake("the decoder's labels are shifted twice", hint="That trains a model to skip a word. One place.")(
    _labels(lambda ids, real, pad: _left(_left(_scored(ids, real), IGNORED), IGNORED))
)

exercise.mistake(
    "the last label is the first token of the row", hint="torch.roll wraps round. Nothing follows the last token: -100."
)(_labels(lambda ids, real, pad: _scored(ids, real).roll(-1, 1)))


def _ends_with(ids, labels):
    return torch.cat([labels[:, :-1], ids], 1)


exercise.mistake("the last label is the last token itself", hint="Nothing follows the last token: -100.")(
    _labels(lambda ids, real, pad: _ends_with(ids[:, -1:], _left(_scored(ids, real), IGNORED)))
)

exercise.mistake(
    "the last label is the padding's id", hint="Nothing follows the last token: -100, which the loss skips."
)(_labels(lambda ids, real, pad: _left(_scored(ids, real), pad)))

exercise.mistake("padding is scored", hint="Labels that aren't real are -100.")(
    _shifting(
        lambda ids, real, start, pad: (ids.clone(), _left(ids, IGNORED)),
        lambda ids, real, start, pad: (right_half(ids, real, start, pad)[0], ids.clone()),
    )
)

exercise.mistake(
    "padding is looked for before the shift",
    hint="What counts is whether the *label* is real: move `real` along with the ids.",
)(_labels(lambda ids, real, pad: _left(ids, IGNORED).masked_fill(~real, IGNORED)))


def _by_pad_id(made):
    return lambda ids, real, start, pad: made(ids, ids != pad, start, pad)


exercise.mistake(
    "a token that has the padding's id is taken for padding",
    hint="Many tokenizers use the end token for padding. `real` says what is padding, not the id.",
)(_shifting(_by_pad_id(right_decoder), _by_pad_id(right_half)))

exercise.mistake(
    "what the decoder reads is shifted as well",
    hint="A decoder-only model reads the ids as they are; only the labels move.",
)(_shifting(lambda ids, real, start, pad: (_right(ids, start), right_decoder(ids, real, start, pad)[1])))


def _reads(make):
    """An encoder-decoder that reads something else."""
    return _shifting(half=lambda ids, real, start, pad: (make(ids, real, start, pad), _scored(ids, real)))


exercise.mistake(
    "an encoder-decoder reads its answer unshifted",
    hint="Then place i reads what it should predict. Start token first, everything one place later.",
)(_reads(lambda ids, real, start, pad: ids.masked_fill(~real, pad)))


def _overwritten(ids, real, start, pad):
    inputs = ids.masked_fill(~real, pad)
    inputs[:, 0] = start
    return inputs


exercise.mistake(
    "the start token takes the first token's place",
    hint="Move the ids one place to the right first; the last one drops out.",
)(_reads(_overwritten))

exercise.mistake(
    "an encoder-decoder's labels are shifted as well", hint="Its inputs have moved already. Label i is ids[:, i]."
)(
    _shifting(
        half=lambda ids, real, start, pad: (right_half(ids, real, start, pad)[0], _left(_scored(ids, real), IGNORED))
    )
)

exercise.mistake(
    "the decoder reads -100 where there is padding",
    hint="-100 is no token: an embedding table has no such row. `pad` goes there.",
)(_reads(lambda ids, real, start, pad: _right(_scored(ids, real), start)))

exercise.mistake(
    "what stands under the padding is read", hint="Where the token moved there is padding, the inputs hold `pad`."
)(_reads(lambda ids, real, start, pad: _right(ids, start)))


def _longer(ids, real, start, pad):
    return torch.cat([torch.full_like(ids[:, :1], start), ids.masked_fill(~real, pad)], 1)


exercise.mistake(
    "the start token is added and nothing is dropped", hint="Inputs and labels have the same shape as the ids."
)(_reads(_longer))

exercise.mistake("a decoder reads `pad` where there is padding", hint="A decoder reads the ids as they are.")(
    _shifting(lambda ids, real, start, pad: (ids.masked_fill(~real, pad), right_decoder(ids, real, start, pad)[1]))
)

exercise.mistake(
    "`real` isn't moved along with what an encoder-decoder reads",
    hint="What matters is whether the token that was moved there is real: `pad` first, and then the shift.",
)(_reads(lambda ids, real, start, pad: _shows_start(_right(ids, start).masked_fill(~real, pad), start)))


def _shows_start(inputs, start):
    return torch.cat([torch.full_like(inputs[:, :1], start), inputs[:, 1:]], 1)


def _start_behind_padding(ids, real, start, pad):
    return torch.where(_right(real, False), _right(ids, start), torch.where(real, start, pad))


exercise.mistake(
    "the start token stands behind the padding on the left",
    hint="`start` is the first input of every row; behind it come the ids, padding included.",
)(_reads(_start_behind_padding))

exercise.mistake("`start` and `pad` are exchanged", hint="`start` begins each row, `pad` stands for padding.")(
    lambda ids, real, kind, start, pad: _shifting()(ids, real, kind, pad, start)
)

exercise.mistake("`real` is read the wrong way round", hint="True marks what is real.")(
    lambda ids, real, *others: _shifting()(ids, ~real, *others)
)

exercise.mistake("every row has the padding of the first", hint="Each row has its own: real[row, place].")(
    lambda ids, real, *others: _shifting()(ids, real[:1].expand(real.shape), *others)
)

exercise.mistake("inputs and labels are exchanged", hint="(inputs, labels), in this order.")(
    lambda *args: _shifting()(*args)[::-1]
)

exercise.mistake(
    "the last label of a row is the first token of the next row",
    hint="Rows have nothing to do with each other. Nothing follows the last token: -100.",
)(_labels(lambda ids, real, pad: _left(_scored(ids, real).view(1, -1), IGNORED).view(ids.shape)))


@exercise.mistake("an unknown kind is a KeyError", hint="Ask first whether the kind is one of the two: ValueError.")
def shifted_by_lookup(ids, real, kind, start, pad):
    return {"decoder": right_decoder, "encoder-decoder": right_half}[kind](ids, real, start, pad)


exercise.mistake(
    "the two kinds are exchanged",
    hint="'decoder' moves the labels to the left, 'encoder-decoder' the inputs to the right.",
)(_shifting(right_half, right_decoder))

exercise.mistake("an unknown kind is taken for one of the two", hint="Raise a ValueError.")(
    _shifting(unknown="accepted")
)

exercise.mistake(
    "kinds that are spelt otherwise are taken as well", hint="Compare the whole text, as it is: 'Decoder' is unknown."
)(lambda ids, real, kind, *marks: _shifting()(ids, real, kind.lower(), *marks))

exercise.mistake("labels are int32", hint="cross_entropy asks for int64 labels.")(
    lambda ids, real, kind, *marks: tuple(x.int() for x in _shifting()(ids, real, kind, *marks))
)

exercise.mistake(
    "the padding's id is taken to be 0 and the start token's 2", hint="Each tokenizer has its own: `pad` and `start`."
)(lambda ids, real, kind, start, pad: _shifting()(ids, real, kind, 2, 0))

exercise.alternative(_shifting())


@exercise.alternative
def shifted_by_loop(ids, real, kind, start, pad):
    _known(kind)
    inputs, labels = ids.clone(), torch.full_like(ids, IGNORED)
    for r in range(len(ids)):
        for i in range(ids.shape[1]):
            if kind == "encoder-decoder":
                inputs[r, i] = start if i == 0 else ids[r, i - 1] if real[r, i - 1] else pad
            place = i + (kind == "decoder")
            if place < ids.shape[1] and real[r, place]:
                labels[r, i] = ids[r, place]
    return inputs, labels


@exercise.alternative
def shifted_by_concat(ids, real, kind, start, pad):
    """A row that is one longer, seen from its two ends."""
    _known(kind)
    if kind == "decoder":
        long = torch.nn.functional.pad(torch.where(real, ids, IGNORED), (0, 1), value=IGNORED)
        return ids, long[:, 1:]
    long = torch.nn.functional.pad(torch.where(real, ids, IGNORED), (1, 0), value=start)
    return torch.where(long == IGNORED, pad, long)[:, :-1], long[:, 1:]
