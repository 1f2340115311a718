"""Wrong batches and bits per byte, and a few right ones that look different."""

from __future__ import annotations

import math

import torch

# ---- get_batch ------------------------------------------------------------------------------------------------------


def _batch(high=lambda length, n: length - n, first=0, second=1, spread=None, shape=None):
    """A batch in parts: the end of the starts' range, where inputs and targets begin, and what is done to the rows."""

    def get(data, n, rows, generator):
        starts = torch.randint(max(1, high(len(data), n)), (rows,), generator=generator)
        starts = spread(starts, len(data), n) if spread else starts
        places = starts[:, None] + torch.arange(n)
        made = data[places + first], data[(places + second) % len(data) if second > 1 else places + second]
        return tuple(map(shape, made)) if shape else made

    return get


batch = _batch()
batch_any_start = _batch(high=lambda length, n: length)
batch_one_too_far = _batch(high=lambda length, n: length - n + 1)
batch_last_missing = _batch(high=lambda length, n: length - n - 1)
batch_unshifted = _batch(second=0)
batch_shifted_by_two = _batch(high=lambda length, n: length - n, second=2)
batch_backwards = _batch(first=1, second=0)
batch_whole_pieces = _batch(spread=lambda starts, length, n: starts - starts % n)
batch_one_start = _batch(spread=lambda starts, length, n: starts[:1].expand_as(starts))
batch_in_a_row = _batch(spread=lambda starts, length, n: (starts[0] + torch.arange(len(starts))) % (length - n))
batch_flat = _batch(shape=lambda x: x.flatten())
batch_transposed = _batch(shape=lambda x: x.T)
batch_as_floats = _batch(shape=lambda x: x.float())


def batch_next_piece(data, n, rows, generator):
    """The targets are the n tokens after the inputs."""
    starts = torch.randint(max(1, len(data) - 2 * n + 1), (rows, 1), generator=generator)
    places = starts + torch.arange(n)
    return data[places], data[(places + n) % len(data)]


def batch_last_only(data, n, rows, generator):
    """One target a row: the token after the piece."""
    inputs, targets = batch(data, n, rows, generator)
    return inputs, targets[:, -1]


def batch_circular(data, n, rows, generator):
    """Every token may be a start: what runs over the end goes on at the beginning."""
    places = torch.randint(len(data), (rows, 1), generator=generator) + torch.arange(n)
    return data[places % len(data)], data[(places + 1) % len(data)]


def batch_of_single_tokens(data, n, rows, generator):
    """n tokens from anywhere, each with its next one."""
    places = torch.randint(len(data) - 1, (rows, n), generator=generator)
    return data[places], data[places + 1]


def batch_from_global(data, n, rows, generator):
    return batch(data, n, rows, None)


def batch_reseeded(data, n, rows, generator):
    return batch(data, n, rows, generator.manual_seed(0))


def batch_begins_anew(data, n, rows, generator):
    """A fresh generator of the same seed at each call."""
    return batch(data, n, rows, torch.Generator().manual_seed(generator.initial_seed()))


def batch_of_slices(data, n, rows, generator):
    starts = torch.randint(0, len(data) - n, (rows,), generator=generator).tolist()
    return torch.stack([data[i : i + n] for i in starts]), torch.stack([data[i + 1 : i + n + 1] for i in starts])


def batch_unfolded(data, n, rows, generator):
    """All pieces as a view, of which some are taken; one token more, cut twice."""
    pieces = data.unfold(0, n + 1, 1)
    chosen = pieces[torch.randint(high=len(pieces), size=(rows,), generator=generator)]
    return [chosen[:, :-1], chosen[:, 1:]]


# ---- bits_per_byte --------------------------------------------------------------------------------------------------


def _bits(losses, targets, n_bytes, base=2.0):
    kept = targets != -100
    return losses[kept].sum() / math.log(base) / n_bytes[targets[kept]].sum()


def bits_as_nats(losses, targets, n_bytes):
    return _bits(losses, targets, n_bytes, math.e)


def bits_times_ln2(losses, targets, n_bytes):
    return _bits(losses, targets, n_bytes) * math.log(2) ** 2


def bits_as_digits(losses, targets, n_bytes):
    return _bits(losses, targets, n_bytes, 10.0)


def bits_per_token(losses, targets, n_bytes):
    return losses[targets != -100].mean() / math.log(2)


def bytes_per_bit(losses, targets, n_bytes):
    return 1 / _bits(losses, targets, n_bytes)


def bits_token_by_token(losses, targets, n_bytes):
    """The mean of each token's own bits per byte."""
    kept = targets != -100
    return (losses[kept] / n_bytes[targets[kept]]).mean() / math.log(2)


def bits_row_by_row(losses, targets, n_bytes):
    """The mean of each row's bits per byte."""
    rows = zip(losses.flatten(0, -2), targets.flatten(0, -2), strict=True) if losses.dim() > 1 else [(losses, targets)]
    each = [_bits(*row, n_bytes) for row in rows if bool((row[1] != -100).any())]
    return torch.stack(each).mean()


def bits_by_mean_length(losses, targets, n_bytes):
    """Divided by the mean length of the vocabulary, not of the text."""
    return bits_per_token(losses, targets, n_bytes) / n_bytes.double().mean()


def bits_with_padding(losses, targets, n_bytes):
    """Padding's losses are summed up, its bytes aren't."""
    return losses.sum() / math.log(2) / n_bytes[targets[targets != -100]].sum()


def bits_padding_is_token_zero(losses, targets, n_bytes):
    return _bits(losses, targets.clamp(min=0), n_bytes)


def bits_padding_has_bytes(losses, targets, n_bytes):
    """Padding's losses are left out, and its bytes counted as those of token 0."""
    return losses[targets != -100].sum() / math.log(2) / n_bytes[targets.clamp(min=0)].sum()


def bits_without_marks(losses, targets, n_bytes):
    """Tokens of no bytes are left out."""
    kept = targets.masked_fill(n_bytes[targets.clamp(min=0)] == 0, -100)
    return _bits(losses, kept, n_bytes)


def perplexity_per_byte(losses, targets, n_bytes):
    return 2 ** _bits(losses, targets, n_bytes)


def bits_by_mask(losses, targets, n_bytes):
    kept = (targets >= 0).to(losses.dtype)
    size = (n_bytes[targets.clamp(min=0)] * kept).sum()
    return float((losses * kept).sum() / size * math.log2(math.e))


def bits_from_means(losses, targets, n_bytes):
    """Bits per token over bytes per token."""
    kept = targets.ne(-100)
    return losses[kept].double().mean() / n_bytes[targets[kept]].double().mean() / torch.tensor(2.0).log()
