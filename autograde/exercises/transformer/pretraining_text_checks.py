"""What tokens, batches and bits per byte of 01_transformer/09_pretrain_gpt are judged by: oracles, cases and laws."""

from __future__ import annotations

import json
import math
import re

import torch

from autograde.exercise import case

GPT_LIKE = r" ?\w+| ?[^\w\s]+|\s+"
_SYLLABLES = ["th", "e", "a", "ou", "to", "be", "or", "no", "t", "s", "ing", "é", "中", "zz"]


def _int(g, low, high):
    """A random whole number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=g))


# ---- train_bpe ------------------------------------------------------------------------------------------------------

def hf_merges(text, n_merges, pattern):
    """The merges of Hugging Face's trainer, which breaks ties towards the smaller ids as well."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    # A private letter for each byte, so that the trainer's alphabet has the bytes' own order.
    letters = [chr(0xE000 + byte) for byte in range(256)]
    words = pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text) if text else []
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=256 + n_merges, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(["".join(letters[b] for b in word.encode()) for word, _ in words], trainer)
    found = json.loads(tokenizer.to_str())["model"]
    return [(found["vocab"][left], found["vocab"][right]) for left, right in found["merges"]]


def _prose(g, n, alphabet=_SYLLABLES):
    """Words of one to three syllables, with a comma or a new line here and there."""
    chosen = torch.randint(len(alphabet), (n, 3), generator=g).tolist()
    lengths, marks = torch.randint(1, 4, (n,), generator=g), torch.randint(6, (n,), generator=g)
    words = ("".join(alphabet[i] for i in row[:k]) for row, k in zip(chosen, lengths, strict=True))
    return "".join(word + {0: ", ", 1: "\n"}.get(int(mark), " ") for word, mark in zip(words, marks, strict=True))


def bpe_cases(g):
    prose = _prose(g, 60)
    yield case(prose, 12, GPT_LIKE, label="some prose")
    yield case(prose.title(), 9, GPT_LIKE, label="large and small letters")
    yield case("the cat and the hat and the bat " * 3, 6, r"\S+|\s+", label="every space is a word")
    yield case("zzzz abc abc", 4, r"\S+|\s+", label="zzzz holds the pair (z, z) three times")
    yield case("aaaaa aaaaa aaa", 3, r"\S+|\s+", label="runs of one letter")
    yield case(_prose(g, 25, ["é", "中", "ü", "🙂", "a"]), 8, GPT_LIKE, label="letters of several bytes")
    yield case(_prose(g, 20, ["a", "b"]), 7, r"\S+|\s+", label="two letters, many ties")
    yield case(_prose(g, 12), 5, r"[\s\S]+", label="the whole text is one word")
    yield case("abc", 9, GPT_LIKE, label="fewer pairs than merges")
    yield case("abababab cd", 5, GPT_LIKE, label="one word repeats itself")
    yield case(_prose(g, 8), 0, GPT_LIKE, label="no merge at all")
    yield case("x", 3, GPT_LIKE, label="a single letter")
    yield case("", 2, GPT_LIKE, label="no text")
    yield case(_prose(g, 20 + _int(g, 0, 20)), 5 + _int(g, 0, 5), GPT_LIKE, label="more prose")


def _spelled(merges):
    """The bytes of every token."""
    known = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        known.append(known[left] + known[right])
    return known


def made_of_earlier_tokens(out, one, call):
    """Merge number k joins two ids below 256 + k."""
    return all(0 <= left < 256 + k and 0 <= right < 256 + k for k, (left, right) in enumerate(out))


def stays_inside_words(out, one, call):
    text, _, pattern = one.args
    words = [word.encode() for word in re.findall(pattern, text)]
    for token in _spelled(out)[256:]:
        if not any(token in word for word in words):
            return f"the token {token!r} stands in no word of the text"
    return True


def begins_alike(out, one, call):
    """The first merges don't depend on how many are asked for."""
    text, n_merges, pattern = one.args
    if n_merges < 2:
        return None
    shorter = call(text, n_merges // 2, pattern)
    return [tuple(pair) for pair in shorter] == [tuple(pair) for pair in out[: n_merges // 2]]


# ---- get_batch ------------------------------------------------------------------------------------------------------

def batches(get_batch, data, n, rows, seed, calls=2):
    """What some calls in a row give with one generator, while torch's own generator stands somewhere else."""
    import torch

    torch.manual_seed(seed + 1)
    generator = torch.Generator().manual_seed(seed)
    return [list(get_batch(data, n, rows, generator)) for _ in range(calls)]


def cut_out(data, n, rows, seed, calls=2):
    """One slice after the other."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(calls):
        starts = torch.randint(len(data) - n, (rows,), generator=generator).tolist()
        pairs = [(data[i : i + n], data[i + 1 : i + 1 + n]) for i in starts]
        found.append([torch.stack(side) for side in zip(*pairs, strict=True)])
    return found


def batch_cases(g):
    def tokens(length, high=500):
        return torch.randint(high, (length,), generator=g)

    def seed():
        return _int(g, 1, 10_000)

    yield case(tokens(1_000), 16, 8, seed(), label="a text of 1,000 tokens")
    yield case(torch.arange(9), 5, 40, seed(), label="4 places to start from, 40 rows")
    yield case(torch.arange(6), 5, 3, seed(), label="one place to start from")
    yield case(tokens(2), 1, 7, seed(), label="two tokens, pieces of one")
    yield case(tokens(300), 1, 5, seed(), label="pieces of one token")
    yield case(tokens(50), 12, 1, seed(), label="one row")
    yield case(tokens(37), 7, 60, seed(), calls=1, label="many rows")
    yield case(tokens(60, 2), 9, 6, seed(), calls=3, label="three batches in a row")
    yield case(tokens(200 + _int(g, 0, 50)), 5 + _int(g, 0, 9), 2 + _int(g, 0, 9), seed(), label="random sizes")


def _counting(one, call):
    """The starts of 600 rows that are drawn from 0, 1, 2, …, and how many places there are."""
    n = min(one.args[1], 6)
    inputs, targets = call(torch.arange(n + 7), n, 600, one.args[3], calls=1)[0]
    return inputs, targets, 7


def target_is_the_next(out, one, call):
    inputs, targets, _ = _counting(one, call)
    return bool((targets == inputs + 1).all()) or "in a text that counts 0, 1, 2, … a target isn't its input plus 1"


def rows_are_pieces(out, one, call):
    """Each row holds neighbours, in order."""
    inputs, _, _ = _counting(one, call)
    return bool((inputs == inputs[:, :1] + torch.arange(inputs.shape[1])).all())


def starts_everywhere(out, one, call):
    inputs, _, places = _counting(one, call)
    missing = set(range(places)) - set(inputs[:, 0].tolist())
    return not missing or f"of the starts 0 to {places - 1}, never: {', '.join(map(str, sorted(missing)))}"


def follows_the_generator(out, one, call):
    """One seed, the same batches; and the second batch is another one."""
    data, seed = torch.arange(1_000), one.args[3]
    first, again, other = (call(data, 3, 4, s)[0][0] for s in (seed, seed, seed + 77))
    if not torch.equal(first, again) or torch.equal(first, other):
        return "the batches should depend on the generator, and on nothing else"
    one_batch, next_batch = (inputs for inputs, _ in call(data, 3, 4, seed))
    return not torch.equal(one_batch, next_batch) or "the second batch is the first one again"


# ---- bits_per_byte --------------------------------------------------------------------------------------------------

def counted_bits(losses, targets, n_bytes):
    """One token after the other."""
    bits, size = 0.0, 0
    for loss, target in zip(losses.flatten().tolist(), targets.flatten().tolist(), strict=True):
        if target != -100:
            bits += loss / math.log(2)
            size += int(n_bytes[target])
    return bits / size


def bits_cases(g):
    def text(*shape, vocabulary=20, scale=3.0, longest=9):
        losses = torch.rand(shape, generator=g) * scale
        return losses, torch.randint(vocabulary, shape, generator=g), torch.randint(1, longest, (vocabulary,),
                                                                                  generator=g)

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
    yield case(*(x.double() if x.is_floating_point() else x for x in padded(*text(30))), label="float64")


def twice_the_text(out, one, call):
    """A text and its copy have the bits per byte of the text."""
    losses, targets, n_bytes = one.args
    return abs(float(call(torch.cat([losses, losses]), torch.cat([targets, targets]), n_bytes)) - float(out)) < 1e-4


def longer_tokens_cost_less(out, one, call):
    """With the same losses, tokens of three times the bytes need a third of the bits per byte."""
    losses, targets, n_bytes = one.args
    return abs(3 * float(call(losses, targets, 3 * n_bytes)) - float(out)) < 1e-4 * max(1.0, float(out))


def padding_is_free(out, one, call):
    losses, targets, n_bytes = one.args
    wider = torch.cat([losses, torch.full_like(losses, 9.0)]), torch.cat([targets, torch.full_like(targets, -100)])
    return abs(float(call(*wider, n_bytes)) - float(out)) < 1e-4 * max(1.0, float(out))
