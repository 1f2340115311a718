"""How BLEU, ROUGE-L and perplexity are judged: sacrebleu, rapidfuzz, transformers; cases and laws."""

from __future__ import annotations

import math

import torch
from rapidfuzz.distance import LCSseq
from sacrebleu.metrics.bleu import BLEU
from transformers.loss.loss_utils import ForCausalLMLoss

from autograde.exercise import case, same

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "big", "small", "mat", "The"]


def _pick(g, high):
    return int(torch.randint(high, (1,), generator=g))


def _sentence(g, n, words=WORDS):
    return [words[_pick(g, len(words))] for _ in range(n)]


def _edited(g, tokens, changes):
    """The tokens with some of them exchanged for words that occur nowhere else."""
    out = list(tokens)
    for place in torch.randperm(len(out), generator=g)[:changes].tolist():
        out[place] = f"x{_pick(g, 90)}"
    return out


# ---- bleu -----------------------------------------------------------------------------------------------------------

def sacre_bleu(candidates, references, max_n=4):
    """Tokens as they are, nothing smoothed, a share instead of percent."""
    judge = BLEU(tokenize="none", smooth_method="none", effective_order=False, max_ngram_order=max_n, force=True)
    most = max(map(len, references))
    streams = [[" ".join(r[i]) if i < len(r) else None for r in references] for i in range(most)]
    return judge.corpus_score([" ".join(c) for c in candidates], streams).score / 100


def bleu_cases(g):
    long, short = _sentence(g, 14), _sentence(g, 9)
    other = _sentence(g, 14)
    several = [_sentence(g, n) for n in (12, 8, 15)]
    close = _edited(g, long, 2)
    yield case([long], [[long]], label="the reference itself")
    yield case([close], [[long]], label="two words of fourteen are wrong")
    yield case([long[:8]], [[long]], label="right, but cut short")
    yield case([long + _edited(g, short, 9)], [[long]], label="right, and then more")
    yield case([_sentence(g, 6, ["u", "v"]) + long[:7]], [[long[:3] + ["y"] + long[3:]]], 3, label="up to 3-grams")
    mats = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    yield case([["the"] * 7], [mats], 1,
               label="the the the …, single words (Papineni's example)")
    yield case([several[0][:7] + several[0][:5], several[1][:6], several[2]],
               [[several[0]], [several[1], several[1][:6] + ["big"] * 4], [_edited(g, several[2], 3)]],
               label="three texts, one of them with two references")
    yield case(candidates=[long[:7] + other[:3]], references=[[long[:7], other, long[:13]]], max_n=2,
               label="references of 7, 14 and 13 tokens for a candidate of 10, by keyword")
    yield case([long[:6] * 2], [[long[:6] + ["q"] * 8, ["r"] + long[:6]]], label="a phrase twice, once a reference")
    yield case([long[:3], _edited(g, other, 2)], [[long], [other]],
               label="a candidate too short for 4-grams, beside a longer one")
    yield case([[], close], [[short], [long]], label="an empty candidate beside a good one")
    yield case([long[:3]], [[long]], label="nothing but a candidate too short for 4-grams")
    yield case([long[:3] + ["z"] + long[4:7] + ["z"]], [[long]], label="no 4-gram matches")
    yield case([[]], [[short]], label="nothing but an empty candidate")


def _corpus(one):
    candidates, references = one.args[:2] if one.args else (one.kwargs["candidates"], one.kwargs["references"])
    return candidates, references, one.args[2] if len(one.args) > 2 else one.kwargs.get("max_n", 4)


def a_share(out, one, call):
    return 0 <= float(out) <= 1 + 1e-9


def itself_is_one(out, one, call):
    _, references, n = _corpus(one)
    fixed = [r[0] for r in references]
    return None if max(map(len, fixed)) < n else same(float(call(fixed, references, n)), 1.0)


def stuttering_is_punished(out, one, call):
    """A text written down ten times finds each of its words once."""
    _, references, n = _corpus(one)
    if n != 1:
        return None
    score = float(call([references[0][0] * 10], [references[0][:1]], 1))
    return same(score, 0.1) or f"a reference written down ten times gets {score:.3g} for its words, not 0.1"


def cut_is_punished(out, one, call):
    """The beginning of a reference has only right n-grams: what is left is the penalty."""
    candidates, references, n = _corpus(one)
    c, r = len(candidates[0]), len(references[0][0])
    if len(candidates) > 1 or len(references[0]) > 1 or not n <= c < r or candidates[0] != references[0][0][:c]:
        return None
    wanted = math.exp(1 - r / c)
    return same(float(out), wanted) or f"{c} right words of {r} get {float(out):.3g}, not {wanted:.3g}"


def corpus_not_sentences(out, one, call):
    """A long and a short text: the counts are added up, whatever text they come from."""
    candidates, references, n = _corpus(one)
    if len(candidates) < 3:
        return None
    twice = call(candidates + candidates[::-1], references + references[::-1], n)
    good, poor = [f"w{i}" for i in range(12)], ["v1", "v2", "x", "y", "z"]
    both = float(call([good, poor], [[good], [["v1", "v2", "v3", "v4", "v5"]]], 2))
    return same(float(twice), float(out)) and same(both, math.sqrt(14 / 17 * 12 / 15))


# ---- rouge_l --------------------------------------------------------------------------------------------------------

def rapid_rouge(candidate, reference):
    """rapidfuzz finds the longest common subsequence; precision, recall and F1 as in Lin's paper with beta = 1."""
    found = LCSseq.similarity(candidate, reference)
    if not found:
        return 0.0, 0.0, 0.0
    return found / len(candidate), found / len(reference), 2 * found / (len(candidate) + len(reference))


def rouge_cases(g):
    long = _sentence(g, 15)
    yield case(["police", "kill", "the", "gunman"], ["police", "killed", "the", "gunman"], label="Lin's example")
    yield case(["the", "gunman", "kill", "police"], ["police", "killed", "the", "gunman"], label="turned round")
    yield case(_sentence(g, 12, WORDS[:5]), _sentence(g, 9, WORDS[:5]), label="twelve against nine, few words")
    yield case(_edited(g, long, 5), long, label="five of fifteen words are wrong")
    yield case(long[::2], long, label="every second word")
    yield case(candidate=long + _sentence(g, 10), reference=long[:6], label="long against short, by keyword")
    # Greedy matching takes the first "b", far to the right, and loses the rest.
    yield case(["b", "a", "c", "d"], ["a", "c", "d", "b"], label="the first word stands last")
    yield case(["a", "a", "a", "b"], ["a", "b", "b", "a", "a"], label="repeated words")
    yield case(["The", "Cat", "sat", "on", "the", "mat"], ["the", "cat", "Sat", "on", "a", "mat"], label="capitals")
    yield case(["up"], ["up"], label="one word")
    yield case(["yes"], ["no"], label="nothing in common")
    yield case([], ["a", "b"], label="an empty candidate")
    yield case([], [], label="both empty")


def _texts(one):
    return one.args if one.args else (one.kwargs["candidate"], one.kwargs["reference"])


def exchanging_exchanges(out, one, call):
    a, b = _texts(one)
    p, r, f = (float(x) for x in call(b, a))
    whole = call(a + ["q"], a)[1]
    return same([r, p, f], [float(x) for x in out]) and (not a or same(float(whole), 1.0))


def order_counts(out, one, call):
    """Different words backwards have one word in common in order."""
    words = [f"w{i}" for i in range(len(_texts(one)[1]) + 2)]
    return same(float(call(words[::-1], words)[1]), 1 / len(words))


def gaps_are_free(out, one, call):
    """Words strewn in between cost precision, not recall."""
    reference = _texts(one)[1]
    if not reference:
        return None
    strewn = [token for i, word in enumerate(reference) for token in (f"x{i}", word)]
    p, r, _ = (float(x) for x in call(strewn, reference))
    return same(r, 1.0) and same(p, 0.5)


def f_is_harmonic(out, one, call):
    """Four words of a reference of twelve."""
    words = [f"w{i}" for i in range(12)]
    return same([float(x) for x in call(words[:4], words)], [1.0, 1 / 3, 0.5])


# ---- perplexity -----------------------------------------------------------------------------------------------------

def causal_lm_perplexity(logits, labels):
    """exp of the loss that transformers' causal models compute; it shifts by itself."""
    return float(ForCausalLMLoss(logits.double(), labels, logits.shape[-1]).double().exp())


def _language(g, lengths, vocab, scale=2.0, left=False):
    """Logits that know something, and labels padded with -100 to the longest of `lengths`."""
    n = max(lengths)
    labels = torch.full((len(lengths), n), -100)
    for row, length in zip(labels, lengths, strict=True):
        place = slice(n - length, n) if left else slice(0, length)
        row[place] = torch.randint(vocab, (length,), generator=g)
    logits = scale * torch.randn(len(lengths), n, vocab, generator=g)
    # The first row is predicted well and the others badly: then it matters which tokens weigh how much.
    ahead = labels[0, 1:].clamp(min=0)[:, None]
    logits[0, :-1].scatter_add_(-1, ahead, torch.full(ahead.shape, 2.0))
    return logits, labels


def perplexity_cases(g):
    prompted, marks = _language(g, (9, 8), 7)
    marks[:, :4] = -100
    logits, labels = _language(g, (12,), 6, scale=1.0)
    certain = 30 * torch.randn(1, 6, 8, generator=g)
    target = certain.argmax(-1).roll(1, -1)
    yield case(*_language(g, (7,), 5), label="one text")
    yield case(*_language(g, (9, 3, 5), 6), label="texts of 9, 3 and 5 tokens, padded on the right")
    yield case(*_language(g, (4, 10), 6, left=True), label="texts of 4 and 10 tokens, padded on the left")
    yield case(prompted, marks, label="the prompt, the first four tokens, does not count")
    yield case(logits=_language(g, (11, 2), 9)[0], labels=_language(g, (11, 2), 9)[1], label="by keyword")
    yield case(logits.transpose(0, 1).contiguous().transpose(0, 1), labels, label="not contiguous")
    yield case(torch.zeros(2, 4, 50), torch.randint(50, (2, 4), generator=g), label="knows nothing: 50 tokens alike")
    yield case(certain * 10, target, label="logits in the hundreds, all tokens certain")
    yield case(*_language(g, (2,), 4), label="two tokens, so one prediction")
    yield case(torch.randn(2, 5, 1, generator=g), torch.zeros(2, 5, dtype=torch.int64), label="a vocabulary of one")


def _predicted(one):
    return one.args if one.args else (one.kwargs["logits"], one.kwargs["labels"])


def knowing_nothing(out, one, call):
    logits, labels = _predicted(one)
    if len(labels) != 2:
        return None
    return same(float(call(torch.zeros_like(logits), labels)), float(logits.shape[-1]), rtol=1e-3)


def constant_is_neutral(out, one, call):
    logits, labels = _predicted(one)
    if len(labels) != 2:
        return None
    shift = 50 * torch.arange(logits.shape[1]).view(1, -1, 1)
    return same(float(call(logits.double() + shift, labels)), float(out), rtol=1e-3)


def ignored_is_silent(out, one, call):
    """Other logits where the next label doesn't count, and at the last place, change nothing."""
    logits, labels = _predicted(one)
    if bool((labels[:, 1:] != -100).all()):
        return None
    silent = torch.cat([labels[:, 1:] == -100, torch.ones(len(labels), 1, dtype=torch.bool)], 1)
    ramp = torch.linspace(-6, 6, logits.shape[-1])
    return same(float(call(logits.double() + silent[..., None] * ramp, labels)), float(out), rtol=1e-3)


def tokens_weigh_alike(out, one, call):
    """Two texts in one batch: the logarithm is the mean over all their tokens."""
    logits, labels = _predicted(one)
    n = labels.shape[1]
    if n < 3 or logits.shape[-1] < 2 or len(labels) > 2:
        return None
    first = torch.full((1, n), -100)
    first[0, :2] = 0
    flat = torch.zeros(1, n, logits.shape[-1], dtype=torch.float64)
    counted = int((labels[:, 1:] != -100).sum())
    both = call(torch.cat([logits.double(), flat]), torch.cat([labels, first]))
    wanted = (counted * math.log(float(out)) + math.log(logits.shape[-1])) / (counted + 1)
    return same(float(both), math.exp(wanted), rtol=2e-3)


def at_least_one(out, one, call):
    return float(out) >= 1 - 1e-5
