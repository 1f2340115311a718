"""`train_bpe(text, n_merges, pattern)`

The merges of byte-level byte-pair encoding, in the order in which they are made.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import integer

exercise = Draft(
    "train_bpe",
    points=4,
    no_gradient="merges are whole numbers",
    forbid=["tokenizers", "transformers"],
    hints=[
        "Count each distinct word once with collections.Counter, as a tuple of ids. What changes after a merge?",
        "counts[pair] += times, for pair in zip(word, word[1:]). The next merge is min(counts, key=lambda pair: "
        "(-counts[pair], pair)).",
        "Rewrite each word from the left: where word[i : i + 2] == pair, append 256 + len(merges) and go two on, else "
        "append word[i] and go one on.",
    ],
)

GPT_LIKE = r" ?\w+| ?[^\w\s]+|\s+"

_SYLLABLES = ["th", "e", "a", "ou", "to", "be", "or", "no", "t", "s", "ing", "é", "中", "zz"]


def _prose(g, n, alphabet=_SYLLABLES):
    """Words of one to three syllables, with a comma or a new line here and there."""
    chosen = torch.randint(len(alphabet), (n, 3), generator=g).tolist()
    lengths, marks = torch.randint(1, 4, (n,), generator=g), torch.randint(6, (n,), generator=g)
    words = ("".join(alphabet[i] for i in row[:k]) for row, k in zip(chosen, lengths, strict=True))
    return "".join(word + {0: ", ", 1: "\n"}.get(int(mark), " ") for word, mark in zip(words, marks, strict=True))


@exercise.cases
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
    yield case("\n\n\nab ab\n\n\n", 3, GPT_LIKE, label="white space at both ends")
    yield case("abc", 9, GPT_LIKE, label="fewer pairs than merges")
    yield case("abababab cd", 5, GPT_LIKE, label="one word repeats itself")
    yield case(_prose(g, 8), 0, GPT_LIKE, label="no merge at all")
    yield case("x", 3, GPT_LIKE, label="a single letter")
    yield case("", 2, GPT_LIKE, label="no text")
    yield case(_prose(g, 20 + integer(g, 0, 20)), 5 + integer(g, 0, 5), GPT_LIKE, label="more prose")


@exercise.oracle
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


@exercise.law("A merge joins tokens that are there before it")
def made_of_earlier_tokens(out, one, call):
    """Merge number k joins two ids below 256 + k."""
    return all(0 <= left < 256 + k and 0 <= right < 256 + k for k, (left, right) in enumerate(out))


def _spelled(merges):
    """The bytes of every token."""
    known = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        known.append(known[left] + known[right])
    return known


@exercise.law("No token reaches from one word into the next")
def stays_inside_words(out, one, call):
    text, _, pattern = one.args
    words = [word.encode() for word in re.findall(pattern, text)]
    for token in _spelled(out)[256:]:
        if not any(token in word for word in words):
            return f"the token {token!r} stands in no word of the text"
    return True


@exercise.law("Asking for fewer merges gives the first of them")
def begins_alike(out, one, call):
    """The first merges don't depend on how many are asked for."""
    text, n_merges, pattern = one.args
    if n_merges < 2:
        return None
    shorter = call(text, n_merges // 2, pattern)
    return [tuple(pair) for pair in shorter] == [tuple(pair) for pair in out[: n_merges // 2]]


def _words(text, pattern):
    return Counter(tuple(word.encode()) for word in re.findall(pattern, text))


def _count(words):
    counts = Counter()
    for word, times in words.items():
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += times
    return counts


def _smallest_of_the_most(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _joined(word, pair, new):
    """The word with every occurrence of the pair replaced, from the left."""
    out, i = [], 0
    while i < len(word):
        found = word[i : i + 2] == pair
        out.append(new if found else word[i])
        i += 2 if found else 1
    return tuple(out)


def _bpe(split=_words, count=_count, choose=_smallest_of_the_most, join=_joined, first=256, least=1):
    """A trainer in parts: the words, the counts, the choice, the replacement, the first new id."""

    def train(text, n_merges, pattern):
        words, merges = split(text, pattern), []
        while len(merges) < n_merges:
            counts = count(words)
            if not counts or max(counts.values()) < least:
                break
            pair = choose(counts)
            renewed = Counter()
            for word, times in words.items():
                renewed[join(word, pair, first + len(merges))] += times
            words = renewed
            merges.append(pair)
        return merges

    return train


exercise.mistake(
    "a tie goes to the pair that was seen first",
    hint="max(counts, key=counts.get) does that. Here the smaller pair of ids wins.",
)(_bpe(choose=lambda counts: max(counts, key=counts.get)))

exercise.mistake(
    "a tie goes to the larger pair of ids", hint="Among the most frequent, the smallest: min over (-count, pair)."
)(_bpe(choose=lambda counts: max(counts, key=lambda pair: (counts[pair], pair))))

exercise.mistake("the rarest pair is joined", hint="The most frequent one.")(
    _bpe(choose=lambda counts: min(counts, key=lambda pair: (counts[pair], pair)))
)


def _by_likelihood(counts):
    """WordPiece's score: how much more often together than apart."""
    left, right = Counter(), Counter()
    for (a, b), times in counts.items():
        left[a] += times
        right[b] += times
    return min(counts, key=lambda pair: (-counts[pair] / (left[pair[0]] * right[pair[1]]), pair))


exercise.mistake(
    "pairs are scored by count(ab) / (count(a) count(b))",
    hint="That is WordPiece, the tokenizer of BERT. BPE counts, and nothing else.",
)(_bpe(choose=_by_likelihood))

exercise.mistake(
    "a word counts once, however often it stands in the text", hint="Weigh a word's pairs by its number of occurrences."
)(_bpe(count=lambda words: _count(dict.fromkeys(words, 1))))


def _apart(words):
    """Counts in which pairs don't overlap: one (z, z) in zzz."""
    counts = Counter()
    for word, times in words.items():
        last = None
        for i, pair in enumerate(zip(word, word[1:], strict=False)):
            if last != (i - 1, pair):
                counts[pair] += times
                last = i, pair
    return counts


exercise.mistake("pairs that overlap are counted once", hint="zzz holds (z, z) twice: zip(word, word[1:]).")(
    _bpe(count=_apart)
)


def _once_a_word(words):
    """Counts in which a pair counts once for each word that it stands in."""
    counts = Counter()
    for word, times in words.items():
        for pair in set(zip(word, word[1:], strict=False)):
            counts[pair] += times
    return counts


exercise.mistake(
    "a pair counts once for a word, however often it stands in it", hint="abab holds (a, b) twice: count all places."
)(_bpe(count=_once_a_word))

exercise.mistake(
    "the text isn't cut into words",
    hint="re.findall(pattern, text) gives the words; pairs across their ends don't count.",
)(_bpe(split=lambda text, pattern: Counter([tuple(text.encode())])))

exercise.mistake("letters are counted instead of bytes", hint="é is two bytes and 中 three: word.encode() gives them.")(
    _bpe(split=lambda text, pattern: Counter(tuple(map(ord, w)) for w in re.findall(pattern, text)))
)

exercise.mistake("the text is changed to small letters", hint="Leave the text as it is.")(
    _bpe(split=lambda text, pattern: _words(text.lower(), pattern))
)

exercise.mistake(
    "white space is thrown away",
    hint="The pattern's words include their space; split() drops it, and the text can't be restored.",
)(_bpe(split=lambda text, pattern: Counter(tuple(word.encode()) for word in text.split())))

exercise.mistake("white space at the ends of the text is stripped", hint="It is part of the text: leave it as it is.")(
    _bpe(split=lambda text, pattern: _words(text.strip(), pattern))
)

exercise.mistake(
    "a tie goes to the pair whose second id is the smaller", hint="As Python compares tuples: the first id decides."
)(_bpe(choose=lambda counts: min(counts, key=lambda pair: (-counts[pair], pair[::-1]))))

exercise.mistake(
    "every word gets an end mark",
    hint="Sennrich et al. do so; byte-level BPE has the space at the word's beginning instead.",
)(
    _bpe(
        split=lambda text, pattern: Counter({(*word, 256): times for word, times in _words(text, pattern).items()}),
        first=257,
    )
)


def _joined_once(word, pair, new):
    for i in range(len(word) - 1):
        if word[i : i + 2] == pair:
            return word[:i] + (new,) + word[i + 2 :]
    return word


exercise.mistake("only the first occurrence in a word is joined", hint="Go on to the end of the word.")(
    _bpe(join=_joined_once)
)


def _joined_from_the_right(word, pair, new):
    return _joined(word[::-1], pair[::-1], new)[::-1]


exercise.mistake("pairs are joined from the right", hint=("zzz becomes (zz)(z): from the left."))(
    _bpe(join=_joined_from_the_right)
)

exercise.mistake(
    "the words are never rewritten",
    hint="After a merge, replace the pair by its new id in every word, and count again.",
)(_bpe(join=lambda word, pair, new: word))


@exercise.mistake("all merges come from one count", hint="Count again after every merge: new tokens make new pairs.")
def bpe_counted_once(text, n_merges, pattern):
    """The most frequent pairs of bytes, all from one count."""
    counts = _count(_words(text, pattern))
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:n_merges]


exercise.mistake("new ids begin with 257", hint="Bytes are 0 to 255, so 256 is next.")(_bpe(first=257))

exercise.mistake(
    "pairs that occur only once are not joined",
    hint="A library's default (min_frequency=2). Here it goes on as long as there is a pair.",
)(_bpe(least=2))

bpe = _bpe()


@exercise.mistake("n_merges is taken for the size of the vocabulary", hint="The vocabulary is 256 + n_merges.")
def bpe_vocabulary_size(text, n_merges, pattern):
    return bpe(text, max(0, n_merges - 256), pattern)


@exercise.mistake("the newest merge comes first", hint="In the order in which they were made: that is their rank.")
def bpe_newest_first(text, n_merges, pattern):
    return bpe(text, n_merges, pattern)[::-1]


@exercise.mistake("the pairs are byte strings", hint="Pairs of ids: ints.")
def bpe_as_bytes(text, n_merges, pattern):
    """The parts as byte strings instead of ids."""
    known, told = [bytes([byte]) for byte in range(256)], []
    for left, right in bpe(text, n_merges, pattern):
        told.append((known[left], known[right]))
        known.append(known[left] + known[right])
    return told


exercise.alternative(bpe)


@exercise.alternative
def bpe_updated(text, n_merges, pattern):
    """Counts are kept up to date: only words that hold the pair are looked at again."""
    words = [[list(word), times] for word, times in _words(text, pattern).items()]
    counts, where = Counter(), defaultdict(set)

    def note(i, sign):
        word, times = words[i]
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += sign * times
            where[pair].add(i)

    for i in range(len(words)):
        note(i, +1)
    merges = []
    for new in range(256, 256 + n_merges):
        most = max(counts.values(), default=0)
        if most == 0:
            break
        pair = min(pair for pair, times in counts.items() if times == most)
        for i in list(where[pair]):
            note(i, -1)
            words[i][0] = list(_joined(tuple(words[i][0]), pair, new))
            note(i, +1)
        merges.append(list(pair))
    return merges


@exercise.alternative
def bpe_by_replacing(text, n_merges, pattern):
    """Every id is one letter of a string, so that str.replace joins."""
    words = Counter("".join(map(chr, word.encode())) for word in re.findall(pattern, text))
    merges = []
    for new in range(256, 256 + n_merges):
        counts = Counter()
        for word, times in words.items():
            for i in range(len(word) - 1):
                counts[ord(word[i]), ord(word[i + 1])] += times
        if not counts:
            return merges
        pair = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[0][0]
        merges.append(pair)
        old, renewed = chr(pair[0]) + chr(pair[1]), Counter()
        for word, times in words.items():
            renewed[word.replace(old, chr(new))] += times
        words = renewed
    return merges
