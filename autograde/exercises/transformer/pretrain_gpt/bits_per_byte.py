"""`bits_per_byte(losses, targets, n_bytes)`

The bits that a model spends on a text, divided by the bytes of the text.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case

exercise = Draft(
    "bits_per_byte",
    points=2,
    dtypes=[torch.float64],
    no_gradient="it measures, and a text's bytes are fixed",
    hints=[
        "Two sums over the tokens that count: of their bits, and of their bytes.",
        "kept = targets != -100. n_bytes[targets[kept]] are the bytes of the tokens; losses are nats, and a bit is "
        "log(2) nats.",
        "return losses[kept].sum() / math.log(2) / n_bytes[targets[kept]].sum()",
    ],
)


@exercise.cases
def bits_cases(g):
    def text(*shape, vocabulary=20, scale=3.0, longest=9):
        losses = torch.rand(shape, generator=g) * scale
        return (
            losses,
            torch.randint(vocabulary, shape, generator=g),
            torch.randint(1, longest, (vocabulary,), generator=g),
        )

    def padded(losses, targets, n_bytes, share=0.4):
        hidden = torch.rand(targets.shape, generator=g) < share
        hidden.view(-1)[0], hidden.view(-1)[-1] = False, True
        return losses, targets.masked_fill(hidden, -100), n_bytes

    yield case(*text(12), label="one text")
    yield case(*text(4, 9), label="several rows")
    yield case(*padded(*text(5, 8)), label="with padding")
    yield case(*padded(*text(3, 2, 6, vocabulary=50)), label="three dimensions, with padding")
    yield case(torch.tensor([math.log(2.0)]), torch.tensor([0]), torch.tensor([1]), label="one bit, one byte")
    yield case(torch.zeros(3), torch.tensor([1, 0, 1]), torch.tensor([3, 2]), label="nothing is surprising")
    yield case(*text(6, scale=400.0), label="large losses")
    losses, targets, n_bytes = text(4, 7)
    yield case(losses, targets, n_bytes.index_fill(0, targets[0, :2], 0), label="marks of no bytes")
    losses, targets, n_bytes = text(6, 4, vocabulary=3)
    yield case(losses * n_bytes[targets] ** 2, targets, torch.tensor([1, 4, 11]), label="long tokens cost more")
    # A vocabulary so large that -100, taken for an index, is a token.
    yield case(*padded(*text(40, 30, vocabulary=150)), label="many tokens, with padding")


@exercise.oracle
def counted_bits(losses, targets, n_bytes):
    """One token after the other."""
    bits, size = 0.0, 0
    for loss, target in zip(losses.flatten().tolist(), targets.flatten().tolist(), strict=True):
        if target != -100:
            bits += loss / math.log(2)
            size += int(n_bytes[target])
    return bits / size


@exercise.law("A text and its copy have the bits per byte of the text")
def twice_the_text(out, one, call):
    """A text and its copy have the bits per byte of the text."""
    losses, targets, n_bytes = one.args
    twice = call(torch.cat([losses, losses]), torch.cat([targets, targets]), n_bytes)
    return abs(float(twice) - float(out)) < 1e-4 * max(1.0, float(out))


@exercise.law("With tokens of three times the bytes, a third is needed")
def longer_tokens_cost_less(out, one, call):
    """With the same losses, tokens of three times the bytes need a third of the bits per byte."""
    losses, targets, n_bytes = one.args
    return abs(3 * float(call(losses, targets, 3 * n_bytes)) - float(out)) < 1e-4 * max(1.0, float(out))


@exercise.law("More padding changes nothing")
def padding_is_free(out, one, call):
    losses, targets, n_bytes = one.args
    wider = torch.cat([losses, torch.full_like(losses, 9.0)]), torch.cat([targets, torch.full_like(targets, -100)])
    return abs(float(call(*wider, n_bytes)) - float(out)) < 1e-4 * max(1.0, float(out))


def _bits(losses, targets, n_bytes, base=2.0):
    kept = targets != -100
    return losses[kept].sum() / math.log(base) / n_bytes[targets[kept]].sum()


@exercise.mistake("nats are not turned into bits", hint="One bit is log(2) nats.")
def bits_as_nats(losses, targets, n_bytes):
    return _bits(losses, targets, n_bytes, math.e)


@exercise.mistake("nats are multiplied by log(2)", hint="A bit is less than a nat, so there are more of them: divide.")
def bits_times_ln2(losses, targets, n_bytes):
    return _bits(losses, targets, n_bytes) * math.log(2) ** 2


@exercise.mistake("the logarithm to base 10 is used", hint="Bits: base 2.")
def bits_as_digits(losses, targets, n_bytes):
    return _bits(losses, targets, n_bytes, 10.0)


@exercise.mistake(
    "bits per token are returned", hint="A longer vocabulary makes longer tokens. Divide by the text's bytes."
)
def bits_per_token(losses, targets, n_bytes):
    return losses[targets != -100].mean() / math.log(2)


@exercise.mistake("the fraction is upside down", hint="Bits above, bytes below.")
def bytes_per_bit(losses, targets, n_bytes):
    return 1 / _bits(losses, targets, n_bytes)


@exercise.mistake("each token's own ratio is averaged", hint="Sum the bits, sum the bytes, and divide once.")
def bits_token_by_token(losses, targets, n_bytes):
    """The mean of each token's own bits per byte."""
    kept = targets != -100
    return (losses[kept] / n_bytes[targets[kept]]).mean() / math.log(2)


@exercise.mistake("each row's ratio is averaged", hint="Sum the bits, sum the bytes, and divide once.")
def bits_row_by_row(losses, targets, n_bytes):
    """The mean of each row's bits per byte."""
    rows = zip(losses.flatten(0, -2), targets.flatten(0, -2), strict=True) if losses.dim() > 1 else [(losses, targets)]
    each = [_bits(*row, n_bytes) for row in rows if bool((row[1] != -100).any())]
    return torch.stack(each).mean()


@exercise.mistake(
    "the vocabulary's mean length is used",
    hint="Short tokens are used most: add up the bytes of the tokens in the text.",
)
def bits_by_mean_length(losses, targets, n_bytes):
    """Divided by the mean length of the vocabulary, not of the text."""
    return bits_per_token(losses, targets, n_bytes) / n_bytes.double().mean()


@exercise.mistake(
    "the bytes are counted with padding, whose -100 is taken for an index", hint="Leave out targets of -100."
)
def bits_padding_is_an_index(losses, targets, n_bytes):
    """Where the vocabulary is large enough, -100 is a token from its end."""
    return losses[targets != -100].sum() / math.log(2) / n_bytes[targets].sum()


@exercise.mistake("token 0 is taken for padding", hint="Padding is -100. Token 0 is one like any other.")
def bits_without_token_zero(losses, targets, n_bytes):
    kept = targets > 0
    return losses[kept].sum() / math.log(2) / n_bytes[targets[kept]].sum().clamp(min=1)


@exercise.mistake("the bytes of the whole vocabulary are counted", hint="Those of the text: n_bytes[targets[kept]].")
def bits_by_vocabulary(losses, targets, n_bytes):
    return losses[targets != -100].sum() / math.log(2) / n_bytes.sum()


@exercise.mistake("padding's losses are counted", hint="Leave out targets of -100.")
def bits_with_padding(losses, targets, n_bytes):
    """Padding's losses are summed up, its bytes aren't."""
    return losses.sum() / math.log(2) / n_bytes[targets[targets != -100]].sum()


@exercise.mistake("padding is taken for token 0", hint="Leave out targets of -100.")
def bits_padding_is_token_zero(losses, targets, n_bytes):
    return _bits(losses, targets.clamp(min=0), n_bytes)


@exercise.mistake("padding is given the bytes of token 0", hint="Leave out targets of -100, above and below.")
def bits_padding_has_bytes(losses, targets, n_bytes):
    """Padding's losses are left out, and its bytes counted as those of token 0."""
    return losses[targets != -100].sum() / math.log(2) / n_bytes[targets.clamp(min=0)].sum()


@exercise.mistake(
    "tokens of no bytes are left out", hint="Their bits are part of what the text costs, though they add no bytes."
)
def bits_without_marks(losses, targets, n_bytes):
    """Tokens of no bytes are left out."""
    kept = targets.masked_fill(n_bytes[targets.clamp(min=0)] == 0, -100)
    return _bits(losses, kept, n_bytes)


@exercise.mistake(
    "2 to the power of the result is returned", hint="That would be a perplexity per byte. Wanted are the bits."
)
def perplexity_per_byte(losses, targets, n_bytes):
    return 2 ** _bits(losses, targets, n_bytes)


@exercise.alternative
def bits_by_mask(losses, targets, n_bytes):
    kept = (targets >= 0).to(losses.dtype)
    size = (n_bytes[targets.clamp(min=0)] * kept).sum()
    return float((losses * kept).sum() / size * math.log2(math.e))


@exercise.alternative
def bits_from_means(losses, targets, n_bytes):
    """Bits per token over bytes per token."""
    kept = targets.ne(-100)
    return losses[kept].double().mean() / n_bytes[targets[kept]].double().mean() / torch.tensor(2.0).log()
