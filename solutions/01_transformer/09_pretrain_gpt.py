# ---
# jupyter:
#   course:
#     title: "Pretrain your own GPT"
#     exercises: transformer.pretrain_gpt
#     questions: [T08]
#     needs:
#       - 01_transformer/01_attention
#       - 01_transformer/04_rope
#       - 01_transformer/05_normalization
#       - 01_transformer/07_training_recipe
# ---

# %% [markdown]
# # Pretrain your own GPT
#
# You have built attention, rotary positions, RMSNorm, SwiGLU and a plan for the learning rate, in four chapters. Here
# they become one model, and the model learns to write.
#
# Five pieces are still missing, and you build them: a tokenizer, batches, the loss, a measure by which models with
# different tokenizers can be compared, and the model itself. Then it trains on real Shakespeare, on your own processor,
# while you wait. At the end we take it apart again and ask of its parts what each was good for.

# %% tags=["setup"]
import functools
import json
import math
import re
import time
import zlib
from collections import Counter, defaultdict
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, figure, own, shakespeare, show, smollm, verdict

# A word with the space before it, or signs with the space before them, or white space.
WORDS = r" ?\w+| ?[^\w\s]+|\s+"

# %% [markdown]
# ## Your parts
#
# `own` looks into your earlier notebooks and brings the functions that you wrote there. Each has to agree with the
# library's on a small example before it may join the model. Where one isn't solved yet, or isn't right, the library's
# takes its place, and the line below says so: you can go on, solve it later, and run this notebook again.

# %% tags=["demo"]
def library_rope(x, positions, base=10_000.0):
    """Pairs (i, i + d/2) as complex numbers, turned by multiplication."""
    speeds = base ** (torch.arange(0, x.shape[-1], 2) / -x.shape[-1])
    turn = torch.polar(torch.ones(1), positions[..., None].float() * speeds)
    pairs = torch.complex(*x.float().chunk(2, -1)) * turn
    return torch.cat([pairs.real, pairs.imag], -1).to(x.dtype)


def library_attention(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def library_norm(x, weight=None, eps=1e-6):
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def library_mlp(x, w_gate, w_up, w_down):
    return F.linear(F.silu(F.linear(x, w_gate)) * F.linear(x, w_up), w_down)


def library_lr(step, peak, warmup, total, floor=0.0):
    from transformers import get_cosine_schedule_with_warmup as schedule

    share = schedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), warmup, total).lr_lambdas[0]
    return floor + (peak - floor) * share(min(step, total)) if step >= warmup else peak * share(step)


g = torch.Generator().manual_seed(0)
q, k, v = torch.randn(3, 2, 4, 6, 8, generator=g)
gain, gate, up, down = (torch.randn(shape, generator=g) for shape in ((8,), (5, 8), (5, 8), (8, 5)))
lower = torch.ones(6, 6, dtype=torch.bool).tril()
attention = own(
    "scaled_dot_product_attention", "01_transformer/01_attention", library_attention, (q, k, v, lower)
)
rope = own("apply_rope", "01_transformer/04_rope", library_rope, (q, torch.arange(6)))
norm = own("rms_norm", "01_transformer/05_normalization", library_norm, (q, gain))
mlp = own("swiglu", "01_transformer/07_training_recipe", library_mlp, (q, gate, up, down))
rate_of = own("warmup_cosine_lr", "01_transformer/07_training_recipe", library_lr, (7, 1.0, 2, 20))
PARTS = SimpleNamespace(attention=attention, rope=rope, norm=norm, mlp=mlp)
torch.set_num_threads(1)  # our models are small: a second thread would wait more than it works

# %% [markdown]
# ## Tokens from bytes
#
# A model reads numbers. Take the bytes of the text, and nothing is ever unknown: 256 numbers write every language. But
# a text of bytes is long, and the model needs a step for each. So join what often stands together. Which two bytes do
# stand together most often inside the words of Shakespeare?

# %% tags=["demo"]
text = shakespeare()
training_text, unseen_text = text[:1_200_000], text[3_000_000:3_060_000]
pairs = Counter()
for word, times in Counter(re.findall(WORDS, training_text)).items():
    for pair in zip(word, word[1:], strict=False):
        pairs[pair] += times

most = pairs.most_common(16)
fig, ax = figure(width=8.6, height=3.0)
names = ["".join(pair).replace(" ", "␣").replace("\n", "↵") for pair, _ in most]
ax.bar(names, [times / 1_000 for _, times in most], color=COLORS[0])
ax.set(xlabel="two neighbors inside a word (␣ space, ↵ new line)", ylabel="occurrences\n(thousands)")
first, second = ("".join(pair) for pair, _ in most[:2])
show(
    fig,
    alt="Bars of the most frequent pairs of neighboring letters in Shakespeare: "
    + ", ".join(f"{name} {times:,}" for name, (_, times) in zip(names, most, strict=True)) + ".",
    title=f"In {len(training_text):,} letters, {first!r} stands {most[0][1]:,} times, {second!r} {most[1][1]:,} times",
)

# %% [markdown]
# Byte-pair encoding makes that pair token 256, replaces it everywhere, counts again, and goes on. After enough rounds
# common words are one token, and rare ones are still in pieces. The list of merges *is* the tokenizer (Sennrich et
# al. 2016, arXiv:1508.07909; on bytes since GPT-2). Words are cut out first, so that no token spans two of them.
#
# ## Exercise 1: train a tokenizer

# %% exercise="train_bpe"
def train_bpe(text, n_merges, pattern):
    """The merges of byte-level byte-pair encoding, in the order in which they are made.

    text:     a str, also an empty one
    n_merges: how many merges are wanted, an int of at least 0
    pattern:  a regular expression without groups; re.findall(pattern, text) gives the words,
              and their bytes are those of UTF-8
    Ids 0 to 255 are the bytes, and merge number k (from 0 on) makes id 256 + k. Every round
    counts, in all words of the text, the pairs of neighboring ids; pairs that overlap count
    each, so zzz holds (z, z) twice. The most frequent pair is merged; of several, the smallest,
    as Python compares tuples of ints. Then each of its occurrences in a word, from left to
    right, becomes the new id. If no pair is left, the list ends early; one that occurs once is
    merged.
    Returns a list of pairs of ids, (int, int).

    Sennrich et al. 2016, arXiv:1508.07909, algorithm 1; the order of ties is that of Hugging
    Face's tokenizers.
    """
    ### BEGIN SOLUTION
    times = Counter(re.findall(pattern, text))
    words = [(list(word.encode()), count) for word, count in times.items()]
    counts, places, merges = Counter(), defaultdict(set), []  # places: the words in which a pair stands, or stood

    def count(w, sign):
        word, times = words[w]
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += sign * times
            places[pair].add(w)

    for w in range(len(words)):
        count(w, 1)
    while len(merges) < n_merges and any(counts.values()):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for w in places.pop(best):  # only these words change
            count(w, -1)
            (word, times), joined, i = words[w], [], 0
            while i < len(word):
                found = tuple(word[i : i + 2]) == best
                joined.append(256 + len(merges) if found else word[i])
                i += 2 if found else 1
            words[w] = joined, times
            count(w, 1)
        merges.append(best)
    return merges
    ### END SOLUTION


# %% check="train_bpe"
check(train_bpe)

# %% [markdown]
# The obvious way counts all pairs anew in every round. But a merge changes only the words in which its pair stands: so
# count once, remember for each pair where it is, and correct the counts of these words. Here is the obvious way, beside
# yours and beside the trainer of Hugging Face's `tokenizers`, which is written in Rust; a megabyte of Shakespeare each.

# %% tags=["payoff"]
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers


def by_recounting(text, n_merges, pattern):
    """The same merges, with all pairs counted anew in every round."""
    words, merges = Counter(tuple(word.encode()) for word in re.findall(pattern, text)), []
    for new in range(256, 256 + n_merges):
        counts = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += times
        merges.append(min(counts, key=lambda pair: (-counts[pair], pair)))
        words = Counter({joined(word, merges[-1], new): times for word, times in words.items()})
    return merges


def joined(word, pair, new):
    """The word with each occurrence of the pair replaced."""
    ids, i = [], 0
    while i < len(word):
        found = word[i : i + 2] == pair
        ids.append(new if found else word[i])
        i += 2 if found else 1
    return tuple(ids)


def by_library(text, n_merges, pattern):
    """The merges of tokenizers' own trainer, both halves as strings in which a letter stands for each byte."""
    library = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + n_merges, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([text], trainer)
    return json.loads(library.to_str())["model"]["merges"]


ROUNDS, megabyte, took, found = 30, shakespeare()[:1_000_000], {}, {}
for way in (by_recounting, train_bpe, by_library):
    start = time.perf_counter()
    found[way] = way(megabyte, ROUNDS, WORDS)
    took[way] = time.perf_counter() - start
print(f"{ROUNDS} merges of a megabyte: counted anew {took[by_recounting]:.2f} s, yours {took[train_bpe]:.2f} s "
      f"({took[by_recounting] / took[train_bpe]:.1f} times as fast), tokenizers {took[by_library]:.2f} s")
print("the same merges as by counting anew:", [tuple(pair) for pair in found[train_bpe]] == found[by_recounting])

# %% [markdown]
# Your rule for ties makes training repeatable: the same text, the same ids. The library's BPE is repeatable, too, its
# WordPiece isn't. tokenizers 0.23.3 trains another vocabulary each time, of the same size, so that a tokenizer trained
# anew doesn't fit a saved model. Save it with the model. `findings/tokenizers_trains_another_wordpiece_each_time.sh`
# runs it.

# %% tags=["demo"]
def spelled(merges):
    """The bytes of every token, by id."""
    known = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        known.append(known[left] + known[right])
    return known


def encoder(merges):
    """A function from text to ids, an int64 tensor [tokens]: it applies the merges, the earliest first."""
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}

    @functools.cache
    def ids_of(word):
        ids = tuple(word.encode())
        while ranks.keys() & (pairs := set(zip(ids, ids[1:], strict=False))):
            pair = min(pairs & ranks.keys(), key=ranks.get)
            at = next(i for i in range(len(ids)) if ids[i : i + 2] == pair)
            ids = ids[:at] + (256 + ranks[pair],) + ids[at + 2 :]
        return ids

    return lambda text: torch.tensor([i for word in re.findall(WORDS, text) for i in ids_of(word)])


# %% tags=["payoff"]
MERGES = 256
merges = train_bpe(training_text[:60_000], MERGES, WORDS)
tokens, encode = spelled(merges), encoder(merges)
_, theirs = smollm()
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
sizes = [0, 16, 32, 64, 128, MERGES]
short = [len(unseen_text) / len(encoder(merges[:size])(unseen_text)) for size in sizes]
READ = 8_000  # letters of each text that SmolLM's tokenizer is given


def bytes_per_token(sample):
    size = len(sample.encode())
    return [1.0, size / len(sample), size / len(encode(sample)), size / len(theirs(sample).input_ids)]


fig, (left, right) = figure(1, 2, width=10, height=3.5)
left.plot(sizes, short, color=COLORS[0], marker="o")
left.set(xlabel="merges", ylabel="bytes a token (unseen text)", ylim=(0.9, None))
kinds = ["bytes\n(256)", "letters", f"yours\n({256 + MERGES})", f"SmolLM's\n({len(theirs):,})"]
for offset, (name, sample), color, hatch in (
    (-0.2, ("Shakespeare", unseen_text[:READ]), COLORS[0], ""), (0.2, ("Li Bai, in Chinese", POEM), COLORS[1], "//")
):
    places = [i + offset for i in range(4)]
    right.bar(places, bytes_per_token(sample), 0.38, color=color, hatch=hatch, edgecolor="white", label=name)
right.set_xticks(range(4), kinds)
right.set(xlabel="tokens (size of the vocabulary)", ylabel="bytes a token", ylim=(0, 4.3))
right.legend(loc="upper left")
show(
    fig,
    alt="Left: bytes a token against the number of merges: "
    + ", ".join(f"{size}: {each:.2f}" for size, each in zip(sizes, short, strict=True))
    + ". Right, bars of the bytes a token with bytes, letters, yours, SmolLM's: "
    + "; ".join(
        f"{name} {', '.join(f'{each:.2f}' for each in bytes_per_token(sample))}"
        for name, sample in (("Shakespeare", unseen_text[:READ]), ("Li Bai, in Chinese", POEM))
    ) + ".",
    title=f"{MERGES} merges make tokens of {short[-1]:.2f} bytes; on Chinese, which they never saw, "
    f"{bytes_per_token(POEM)[2]:.2f}",
)
print("the first:   ", " ".join(repr(token.decode()) for token in tokens[256:276]))
print("the longest: ", " ".join(repr(t.decode()) for t in sorted(tokens[256:], key=len)[-12:]))

# %% [markdown]
# ## Batches
#
# One long row of ids, and a model that reads `n` at a time. A row of a batch is a piece from anywhere. Its targets are
# the same piece one token later, so that every position has a question and an answer: $n$ lessons from $n$ tokens.

# %% exercise="get_batch"
def get_batch(data, n, rows, generator):
    """Pieces of a text from random places, and for each of their tokens the next one.

    data:      int64 tensor [length], length at least n + 1
    n, rows:   tokens a piece, and pieces: ints of at least 1
    generator: a torch.Generator. One call of torch.randint with it draws the starts of all
               rows, shape (rows,), independently and all equally likely: from 0 to the last
               start that leaves a target for every input. It is used as it stands, so that the
               next call gives other pieces
    Returns (inputs, targets), int64 [rows, n] each: row r of the inputs begins at start number
    r, and targets[r, i] is the token that follows inputs[r, i] in the text. data stays as it
    is.
    """
    ### BEGIN SOLUTION
    starts = torch.randint(len(data) - n, (rows,), generator=generator)
    places = starts[:, None] + torch.arange(n)
    return data[places], data[places + 1]
    ### END SOLUTION


# %% check="get_batch"
check(get_batch)

# %% [markdown]
# ## The loss
#
# The model gives each possible next token a score, its **logit**. Softmax makes probabilities of them, and the loss is
# the surprise at what really came, $-\log p$: the **negative log-likelihood** (NLL). Of the logits $z$ and the target
# $y$ it is
#
# $$-\log \frac{e^{z_y}}{\sum_j e^{z_j}} = \log \sum_j e^{z_j} - z_y .$$
#
# The left-hand side breaks down early: $e^{89}$ is infinite in float32. So would the right-hand side, as it stands. But
# there the largest logit $m$ can be taken out of the sum, $\log \sum_j e^{z_j} = m + \log \sum_j e^{z_j - m}$, and then
# no exponent is above 0. torch's `logsumexp` does that.

# %% tags=["demo"]
for size in (10.0, 80.0, 100.0):
    scores = torch.tensor([size, 0.0, -size])
    naive, safe = -(scores.exp() / scores.exp().sum()).log(), scores.logsumexp(0) - scores
    print(f"logits {scores.tolist()!s:22} as on the left: {naive.tolist()!s:44} as on the right: {safe.tolist()}")

# %% [markdown]
# ## Exercise 3: cross-entropy

# %% exercise="cross_entropy"
def cross_entropy(logits, targets, ignore_index=-100):
    """The mean of -log softmax(logits)[target] over the targets that count, in nats.

    logits:       float32 or float64 tensor [..., classes]; finite, and some may be in the ten
                  thousands
    targets:      int64 tensor [...]: a class, or ignore_index, which marks a target that
                  doesn't count
    ignore_index: an int, which may be a class. At least one target is another one
    The mean is over all targets together that aren't ignore_index. Targets are used as they
    come: they are shifted already.
    Returns a tensor of no dimension, of the dtype of the logits, from which backward() reaches
    them.

    The same as torch.nn.functional.cross_entropy, and just as stable.
    """
    ### BEGIN SOLUTION
    kept = targets != ignore_index
    logits, targets = logits[kept], targets[kept]
    chosen = logits.gather(-1, targets[:, None])[:, 0]
    return (logits.logsumexp(-1) - chosen).mean()
    ### END SOLUTION


# %% check="cross_entropy"
check(cross_entropy)

# %% [markdown]
# ## Bits per byte
#
# A loss of 3 nats a token: good or bad? That depends on the tokenizer. Longer tokens are harder to guess, and there are
# fewer of them. What can be compared is the price of the *text*: the bits for all tokens, divided by the bytes that
# they spell. A compressor that asks the model what to expect (an *arithmetic coder*) would need about as many, so a zip
# program can enter the contest.
#
# With your function we ask below what SmolLM, which has read much of the internet, needs for two pages of Shakespeare,
# and what a zip program needs, which has read nothing. Our own model will join them, without having seen these pages.
#
# ## Exercise 4: the price of a byte

# %% exercise="bits_per_byte"
def bits_per_byte(losses, targets, n_bytes):
    """The bits that a model spends on a text, divided by the bytes of the text.

    losses:  floating-point tensor [...]: the loss of each token, in nats
    targets: int64 tensor [...]: the token's id, or -100 for padding, which counts nowhere; at
             least one isn't padding
    n_bytes: int64 tensor [vocabulary]: the bytes that each token spells. Marks (end of text)
             spell 0: their losses count all the same. The text has at least one byte
    All bits of the text are divided by all its bytes. Returns a float, or a tensor of no
    dimension.

    Gao et al. 2020, arXiv:2101.00027, section 3.1.
    """
    ### BEGIN SOLUTION
    kept = targets != -100
    return losses[kept].sum() / math.log(2) / n_bytes[targets[kept]].sum()
    ### END SOLUTION


# %% check="bits_per_byte"
check(bits_per_byte)

# %% tags=["payoff"]
chat, tokenizer = smollm()
CLIP = 1_500
pieces = [unseen_text[i : i + CLIP] for i in (0, 30_000)]
size_of = torch.tensor([len(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])
bits = {"no model": [8.0, 8.0], "zip (zlib)": [8 * len(zlib.compress(p.encode(), 9)) / len(p) for p in pieces]}
bits["SmolLM, 135 M"] = []
for piece in pieces:
    ids = tokenizer(piece, return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = chat.model(ids[:, :-1]).last_hidden_state[0]
        # 64 positions at a time: all logits of a page would fill 100 MB.
        scores = (row for part in hidden.split(64) for row in chat.lm_head(part))
        each = [cross_entropy(row, target) for row, target in zip(scores, ids[0, 1:], strict=True)]
    bits["SmolLM, 135 M"].append(float(bits_per_byte(torch.stack(each), ids[0, 1:], size_of)))
for name, found in bits.items():
    each = " and ".join(f"{price:.2f}" for price in found)
    print(f"{name:16} {sum(found) / 2:.2f} bits a byte ({each} on {CLIP:,} letters each)")

# %% [markdown]
# ## The model
#
# LLaMA, as published by Touvron et al. (2023, arXiv:2302.13971): embeddings, then layers that add twice to a running
# sum $x$, a last norm, and a matrix that scores the next token. LLaMA has a matrix of its own for that; we take the
# embeddings once more, as SmolLM does (tied: Press and Wolf 2017, arXiv:1608.05859).
#
# $$x \leftarrow x + \mathrm{Attention}(\mathrm{RMSNorm}(x)), \qquad
# x \leftarrow x + \mathrm{SwiGLU}(\mathrm{RMSNorm}(x))$$
#
# The parts come in as functions, so that you can exchange any of them. You write how they hang together.
#
# ## Exercise 5: GPT

# %% exercise="gpt_forward"
def gpt_forward(ids, weights, n_heads, parts):
    """The logits of the next token at every position, by a model of the LLaMA architecture.

    ids:     int64 tensor [rows, n]
    weights: a dict: "embed" [vocabulary, d]; "norm" [d]; "layers", a list of dicts with
             "norm1", "norm2" [d]; "q", "k", "v", "o" [d, d]; "gate", "up" [hidden, d]; "down"
             [d, hidden]. Matrices are stored as nn.Linear stores them, [out, in], and there are
             no biases. All have one dtype
    n_heads: heads of d / n_heads neighboring columns each; d / n_heads is even
    parts:   parts.norm(x, weight), x of shape [..., d]: RMSNorm
             parts.rope(x, positions), x [..., n, d / n_heads], positions int64 [n]: rotary
             embedding of q and k
             parts.attention(q, k, v, mask), each [..., n, d / n_heads], mask bool [n, n], True
             = may attend
             parts.mlp(x, gate, up, down): SwiGLU
    In each layer, x + attention with norm1 in front, then x + MLP with norm2 in front. A token
    reads itself and what stands before it; positions are 0, 1, 2, … After the last layer comes
    weights["norm"], then the head, which is the embedding matrix again.
    Returns [rows, n, vocabulary], of the weights' dtype. Gradients flow to all weights.

    Touvron et al. 2023, arXiv:2302.13971, section 2.2; the head is tied as in Press and Wolf
    2017, arXiv:1608.05859.
    """
    ### BEGIN SOLUTION
    n, x = ids.shape[-1], weights["embed"][ids]
    mask, positions = torch.ones(n, n, dtype=torch.bool).tril(), torch.arange(n)
    for layer in weights["layers"]:
        h = parts.norm(x, layer["norm1"])
        q, k, v = ((h @ layer[w].T).unflatten(-1, (n_heads, -1)).transpose(1, 2) for w in "qkv")
        heads = parts.attention(parts.rope(q, positions), parts.rope(k, positions), v, mask)
        x = x + heads.transpose(1, 2).flatten(2) @ layer["o"].T
        h = parts.norm(x, layer["norm2"])
        x = x + parts.mlp(h, layer["gate"], layer["up"], layer["down"])
    return parts.norm(x, weights["norm"]) @ weights["embed"].T
    ### END SOLUTION


# %% check="gpt_forward"
check(gpt_forward)

# %% [markdown]
# Given SmolLM's weights, your function has to give SmolLM's logits. Its three heads of keys and values serve nine heads
# of queries, so each is given out three times; the base of its rotation and its eps are other numbers than ours.

# %% tags=["payoff"]
def given_out(matrix, head=64, times=3):
    """Keys' or values' heads, each repeated for the queries that share it."""
    return matrix.unflatten(0, (-1, head)).repeat_interleave(times, 0).flatten(0, 1)


layers = []
for layer in chat.model.layers:
    attend, feed = layer.self_attn, layer.mlp
    layers.append({
        "norm1": layer.input_layernorm.weight, "norm2": layer.post_attention_layernorm.weight,
        "q": attend.q_proj.weight, "k": given_out(attend.k_proj.weight),
        "v": given_out(attend.v_proj.weight), "o": attend.o_proj.weight,
        "gate": feed.gate_proj.weight, "up": feed.up_proj.weight, "down": feed.down_proj.weight,
    })
smol = {"embed": chat.model.embed_tokens.weight, "norm": chat.model.norm.weight, "layers": layers}
base, eps = chat.config.rope_parameters["rope_theta"], chat.config.rms_norm_eps
smol_parts = SimpleNamespace(
    attention=attention, mlp=mlp,
    rope=functools.partial(rope, base=base), norm=functools.partial(norm, eps=eps),
)
ids = tokenizer("All that glitters is not", return_tensors="pt").input_ids
with torch.no_grad():
    gap = (gpt_forward(ids, smol, 9, smol_parts) - chat(ids).logits).abs().max()
    for _ in range(5):
        best = gpt_forward(ids, smol, 9, smol_parts)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, best], 1)
print(f"largest difference from the library's logits: {gap:.0e}")
print(f"your forward pass writes: {tokenizer.decode(ids[0])!r}")
assert gap < 1e-2, "These are not the model's own logits."
del layers, smol

# %% [markdown]
# ## Training
#
# The weights begin as small random numbers. What writes into the running sum (`o` and `down`) begins smaller still, by
# the root of how often that happens (Radford et al. 2019), so that a deep model starts as tame as a shallow one.
#
# Every line of the loop that matters is yours: batches, forward pass, loss, the learning rate of each step.

# %% tags=["demo"]
def new_weights(vocabulary, d, hidden, layers, seed):
    """Fresh weights for gpt_forward, ready to be trained."""
    g = torch.Generator().manual_seed(seed)

    def matrix(out, into, scale=1.0):
        return torch.randn(out, into, generator=g) * scale * into**-0.5

    def layer():
        small = (2 * layers) ** -0.5
        attention = {"norm1": torch.ones(d), **{w: matrix(d, d) for w in "qkv"}, "o": matrix(d, d, small)}
        gated = {"gate": matrix(hidden, d), "up": matrix(hidden, d), "down": matrix(d, hidden, small)}
        return attention | {"norm2": torch.ones(d)} | gated

    embed = 0.1 * torch.randn(vocabulary, d, generator=g)
    made = {"embed": embed, "norm": torch.ones(d), "layers": [layer() for _ in range(layers)]}
    for weight in tensors_of(made):
        weight.requires_grad_()
    return made


def tensors_of(weights):
    return [weights["embed"], weights["norm"], *(w for layer in weights["layers"] for w in layer.values())]


def adamw(weights, lr):
    return torch.optim.AdamW(weights, lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)


# %% tags=["payoff"]
data, unseen = encode(training_text), encode(unseen_text)
HEADS, N, ROWS = 4, 64, 8
LENGTHS = torch.tensor([len(token) for token in tokens])


def train(weights, data, steps, peak, parts=PARTS, optimizer=adamw, schedule=rate_of, seed=0, n=N):
    """Train the weights in place. Gives the training loss of every step, in nats a token."""
    g, losses = torch.Generator().manual_seed(seed), []
    chosen = optimizer(tensors_of(weights), peak)
    for step in range(steps):
        for group in chosen.param_groups:
            group["lr"] = float(schedule(step + 1, peak, steps // 10, steps))
        inputs, targets = get_batch(data, n, ROWS, g)
        loss = cross_entropy(gpt_forward(inputs, weights, HEADS, parts), targets)
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        losses.append(loss.item())
    return losses


def loss_on(ids, weights, parts=PARTS, n=N):
    inputs, targets = get_batch(ids, n, 64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float(cross_entropy(gpt_forward(inputs, weights, HEADS, parts), targets))


def write(weights, start, length=90, temperature=0.7, seed=0):
    """Let the model go on from a text."""
    g, ids = torch.Generator().manual_seed(seed), encode(start)[None]
    with torch.no_grad():
        for _ in range(length):
            scores = gpt_forward(ids[:, -N:], weights, HEADS, PARTS)[:, -1] / temperature
            ids = torch.cat([ids, torch.multinomial(scores.softmax(-1), 1, generator=g)], 1)
    return b"".join(tokens[i] for i in ids[0].tolist()).decode(errors="replace")


STEPS, START = 500, "\nKING HENRY. "
gpt = new_weights(256 + MERGES, d=96, hidden=256, layers=3, seed=0)
before = write(gpt, START)
began = time.perf_counter()
losses = train(gpt, data, STEPS, 4e-3)
seconds, seen = time.perf_counter() - began, STEPS * ROWS * N
count = sum(weight.numel() for weight in tensors_of(gpt))
print(f"{count:,} weights, {seen:,} tokens in {seconds:.0f} s: {seen / seconds:,.0f} tokens a second")
print(f"\n--- before ---{before}\n\n--- after ---{write(gpt, START)}")

# %% tags=["payoff"]
def price(weights, piece):
    """Bits a byte on a text, cut into rows of N tokens."""
    ids = encode(piece)
    rows = ids[: (len(ids) - 1) // N * N + 1]
    inputs, targets = rows[:-1].view(-1, N), rows[1:].view(-1, N)
    with torch.no_grad():
        scores = gpt_forward(inputs, weights, HEADS, PARTS).flatten(0, 1)
    each = [cross_entropy(score, target) for score, target in zip(scores, targets.flatten(), strict=True)]
    return float(bits_per_byte(torch.stack(each), targets.flatten(), LENGTHS))


bits[f"yours, {count / 1e6:.1f} M"] = [price(gpt, piece) for piece in pieces]
smooth = torch.tensor(losses).unfold(0, 20, 1).mean(-1)
held = loss_on(unseen, gpt)
fig, (left, right) = figure(1, 2, width=10, height=3.5)
left.plot(range(20, STEPS + 1), smooth, color=COLORS[0])
left.axhline(math.log(256 + MERGES), color="black", linestyle=":")
left.text(STEPS, math.log(256 + MERGES) - 0.05, "knowing nothing", fontsize=9, ha="right", va="top")
left.axhline(held, color=COLORS[1], linestyle="--")
left.text(20, held - 0.05, "unseen text, at the end", fontsize=9, va="top", color=COLORS[1])
left.set(xlabel="step", ylabel="loss (nats a token, mean of 20)", ylim=(held - 0.5, None))
means = {name: sum(found) / 2 for name, found in bits.items()}
right.barh(list(means), list(means.values()), color=[COLORS[6], COLORS[4], COLORS[2], COLORS[0]])
right.invert_yaxis()
right.set(xlabel="bits a byte of unseen Shakespeare (lower is better)")
for row, value in enumerate(means.values()):
    right.text(value + 0.1, row, f"{value:.2f}", va="center", fontsize=10)
own_price, zip_price = means[f"yours, {count / 1e6:.1f} M"], means["zip (zlib)"]
show(
    fig,
    alt=f"Left: the training loss against the step, from {smooth[0]:.2f} to {smooth[-1]:.2f} nats a token; knowing "
    f"nothing costs {math.log(256 + MERGES):.2f}, unseen text at the end {held:.2f}. Right, bits a byte: "
    + ", ".join(f"{name} {bits:.2f}" for name, bits in means.items()) + ".",
    title=f"After {seconds:.0f} s: {own_price:.2f} bits a byte; zip needs {zip_price:.2f}, and SmolLM "
    f"{means['SmolLM, 135 M']:.2f}",
)

# %% [markdown]
# Mind what this comparison says. Zip has seen nothing but the page itself. SmolLM has seen a great deal, most probably
# these very plays, and it looks back over the whole page where yours sees 64 tokens at most. But it has been tuned for
# chats since, and ours comes from a file of 4-bit weights: the model as it was pretrained may pay less. Yours has read
# the tokens that are counted above, all of them by this one author.
#
# ## What did each part buy?
#
# Take one part out at a time and train again, on the same tokens, with three seeds. Each run is compared with the whole
# model of its own seed. Positions: no rotation at all, only the causal mask. Norms: none. The MLP: a ReLU between two
# matrices, of as many weights as SwiGLU's three. The plan: the peak rate throughout. AdamW: SGD with momentum, at the
# best of three rates, chosen on a text of its own (a kindness that the others don't get). The model is smaller and
# reads bytes, to keep the trainings short.

# %% tags=["payoff"]
SHORT, SHORT_N, SEEDS = 90, 32, range(3)
as_bytes, unseen_bytes, choosing = (
    torch.tensor(list(part.encode())) for part in (training_text, unseen_text, text[3_060_000:3_120_000])
)


def changed(**parts):
    return SimpleNamespace(**(vars(PARTS) | parts))


def sgd(lr):
    return lambda weights, _: torch.optim.SGD(weights, lr, momentum=0.9)


def race(seed, parts=PARTS, hidden=170, peak=1e-2, on=unseen_bytes, **options):
    weights = new_weights(256, 64, hidden, 2, seed)
    train(weights, as_bytes, SHORT, peak, parts, seed=seed, n=SHORT_N, **options)
    return loss_on(on, weights, parts, SHORT_N)


RUNS = {
    "everything": {},
    "no RoPE": {"parts": changed(rope=lambda x, positions: x)},
    "no RMSNorm": {"parts": changed(norm=lambda x, weight: x)},
    "ReLU for SwiGLU": {"parts": changed(mlp=lambda x, _, up, down: (x @ up.T).relu() @ down.T), "hidden": 255},
    "constant rate": {"schedule": lambda step, peak, warmup, total: peak},
}
found = {name: [race(seed, **options) for seed in SEEDS] for name, options in RUNS.items()}
rates = {peak: race(0, optimizer=sgd(peak), peak=peak, on=choosing) for peak in (0.1, 0.3, 1.0)}
peak = min(rates, key=lambda rate: rates[rate] if math.isfinite(rates[rate]) else math.inf)
found["SGD for AdamW"] = [race(seed, optimizer=sgd(peak), peak=peak) for seed in SEEDS]
print("SGD, by rate, on the text that chooses: " + ", ".join(f"{rate:g}: {loss:.2f}" for rate, loss in rates.items()))

whole = found.pop("everything")
extra = {name: [end - base for end, base in zip(ends, whole, strict=True)] for name, ends in found.items()}
cost = {name: sum(each) / len(each) for name, each in extra.items()}
spread = {name: max(each) - min(each) for name, each in extra.items()}
sure = [name for name in cost if abs(cost[name]) > spread[name]]
fig, ax = figure(width=8.6, height=3.4)
for row, (name, each) in enumerate(extra.items()):
    ax.scatter(each, [row] * len(each), color=COLORS[0 if name in sure else 1], s=50, zorder=2,
               marker="o" if name in sure else "D")
ax.axvline(0, color="black", linestyle=":", zorder=1)
ax.set_yticks(range(len(extra)), list(extra))
ax.invert_yaxis()
ax.set(xlabel=f"extra loss on unseen text after {SHORT * ROWS * SHORT_N:,} bytes (nats a byte), one dot a seed")
show(
    fig,
    alt="Three dots a row, one a seed: the extra loss on unseen text without one part. In the mean: "
    + ", ".join(f"{name} {each:+.2f}" for name, each in cost.items()) + ". Round dots: more than the seeds' spread.",
    title="Clear of the seeds' spread: " + (", ".join(f"{name} {cost[name]:+.2f}" for name in sure) or "nothing"),
)

# %% [markdown]
# Such a table belongs to its size, and to its *one* learning rate. After so few bytes a part may not have begun to pay,
# and what a norm is for, to bear higher rates, can't show at a rate that all arms share. Take it as a habit rather than
# as a result: same tokens, same number of weights, several seeds, and no belief in what is smaller than their spread.
#
# ## Pretraining and fine-tuning
#
# The notes say that pretraining and then fine-tuning speeds up convergence considerably. The new task here: 40 kB of
# descriptions of data sets that come with scikit-learn, dry modern English. One model has read Shakespeare first, the
# other begins with random weights. To stay apart from your exercises, both are the library's own LLaMA, on bytes. Each
# side has one learning rate, without a search; the three runs after Shakespeare begin with the same weights and differ
# in their batches.
#
# **Before the run:** *correct* if all three pretrained runs reach in half of the steps what the runs from scratch reach
# at their end; *imprecise* if they need longer, *wrong* if one of them doesn't get there.

# %% claim="T08.4"
import pathlib

import sklearn.datasets
from transformers import LlamaConfig, LlamaForCausalLM

folder = pathlib.Path(sklearn.datasets.__file__).parent / "descr"
prose = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.rst")))
task = torch.tensor(list(prose.encode()))
old = torch.tensor(list(shakespeare()[:1_000_000].encode()))
PIECE, EVERY, BLOCK = 48, 6, 1_000
blocks = task[: len(task) // BLOCK * BLOCK].view(-1, BLOCK)
testing = torch.arange(len(blocks)) % 5 == 4  # every fifth block is kept for the test
learnt_on, tested_on = blocks[~testing].flatten(), blocks[testing].flatten()


def cut(source, rows, g):
    return source[torch.randint(len(source) - PIECE, (rows, 1), generator=g) + torch.arange(PIECE)]


TEST = cut(tested_on, 48, torch.Generator().manual_seed(5))


def fresh(seed):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=170, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.12, tie_word_embeddings=True,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def learn(model, source, steps, peak, seed, every):
    """Train on pieces of a text: the loss on the new task's test text, every few steps."""
    g, curve = torch.Generator().manual_seed(seed), []
    optimizer = adamw(model.parameters(), peak)
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                curve.append(float(model(TEST, labels=TEST).loss))
        ids, decay = cut(source, 8, g), (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = peak * min((step + 1) / 10, decay)
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    return curve


FIRST, THEN = 200, 54
read = fresh(0)
learn(read, old, FIRST, 1e-2, seed=0, every=FIRST)
scratch, tuned = [], []
for seed in range(3):
    scratch.append(learn(fresh(seed), learnt_on, THEN, 1e-2, seed, EVERY))
    model = fresh(0)
    model.load_state_dict(read.state_dict())
    tuned.append(learn(model, learnt_on, THEN, 5e-3, seed, EVERY))

steps = range(0, THEN + 1, EVERY)
fig, ax = figure(width=8.4, height=3.6)
for curves, color, style, name in (
    (scratch, COLORS[1], "--", "from scratch"), (tuned, COLORS[0], "-", "after Shakespeare")
):
    for curve in curves:
        ax.plot(steps, curve, color=color, linestyle=style, linewidth=1.5, label=name)
handles, labels = ax.get_legend_handles_labels()
ax.legend(handles[::3], labels[::3])
ax.set(xlabel="steps on the new text", ylabel="loss on its unseen part\n(nats a byte)")
last = sum(curve[-1] for curve in scratch) / 3
average = [sum(values) / 3 for values in zip(*tuned, strict=True)]
caught = next((step for step, value in zip(steps, average, strict=True) if value <= last), None)
reached = "never" if caught is None else f"by step {caught}"
show(
    fig,
    alt="Loss on the new task against the step, three seeds each, from the first step to the last: from scratch "
    f"{scratch[0][0]:.2f} to {last:.2f}, after Shakespeare {average[0]:.2f} to {average[-1]:.2f} nats a byte.",
    title=f"{THEN} steps from scratch: pretraining gets there {reached}, after {FIRST} of its own",
)
there = [next((step for step, loss in zip(steps, curve, strict=True) if loss <= last), None) for curve in tuned]
verdict(
    "T08.4",
    "wrong" if None in there else "correct" if max(there) <= THEN / 2 else "imprecise",
    f"What {THEN} steps from scratch reach, {last:.2f} nats a byte, the three pretrained runs reach after "
    f"{', '.join(str(step) for step in there)} steps. The pretraining took {FIRST}.",
)

# %% [markdown]
# What may be saved are steps on the new task. The pretraining has cost steps of its own, and these pay when they are
# shared: whoever fine-tunes the same model next doesn't pay them again. With Devlin et al. (2018, arXiv:1810.04805)
# that trade became the standard. (Whether *data* is saved, too, as one often reads, this run doesn't ask.)
#
# ## The receipts

# %% tags=["payoff"]
base = sum(whole) / len(whole)
print(f"{'taken out':18}{'loss':>8}{'cost':>8}{'spread of seeds':>18}   (nats a byte, means of {len(whole)})")
print(f"{'nothing':18}{base:>8.3f}{'':8}{max(whole) - min(whole):>18.3f}")
for name, value in sorted(cost.items(), key=lambda item: -item[1]):
    told = "" if name in sure else "   can't be told from nothing"
    print(f"{name:18}{base + value:>8.3f}{value:>+8.3f}{spread[name]:>18.3f}{told}")

# %% [markdown]
# Everything in this notebook grows by turning the same knobs: more merges, more layers, more tokens. SmolLM ran through
# your function; all it asked for was heads of keys and values that are shared, and two other numbers. What changes when
# such a model is trained is who does the work: one processor isn't enough, and the third part of the course is about
# sharing it. How far to turn which knob say *scaling laws*: a given amount of computing is best spent on about twenty
# tokens for each weight (Hoffmann et al. 2022, arXiv:2203.15556), and on far more of them where the model is to be used
# a lot afterwards. And some models predict more than the next token: heads for the second and third next, whose losses
# are added (*multi-token prediction*: Gloeckle et al. 2024, arXiv:2404.19737; DeepSeek-V3, arXiv:2412.19437).
