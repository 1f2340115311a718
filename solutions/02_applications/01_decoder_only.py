# ---
# jupyter:
#   course:
#     title: "Why decoder-only?"
#     exercises: applications.decoder_only
#     questions: [A11]
#     needs: [01_transformer/02_encoder_decoder]
# ---

# %% [markdown]
# # Why decoder-only?
#
# The Transformer of 2017 had two halves. BERT kept the encoder, GPT the decoder, T5 and BART kept both. Today nearly
# every large language model is a GPT: one stack, one mask, one task. Why did that branch win?
#
# Ask around, and you hear: "it is more efficient, since it has only one stage", "it generates fluently", "its data is
# easy to get". In this chapter you build what sets the families apart: who may see whom, what each is asked to guess,
# and how it writes. Then the reasons can be weighed.
#
# The interview question: **why are most large models today decoder-only?**

# %% tags=["setup"]
import time

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, figure, interval, shakespeare, show, smollm, verdict

# %% [markdown]
# ## Three families, measured
#
# Tiny models with random weights, from transformers' own classes: BERT, GPT-2 and T5. (BART is built like T5; it joins
# when we count parameters.) We don't ask the documentation who sees whom. We ask the models for their attention
# weights, and draw every weight that isn't zero.
#
# BERT and GPT read source and target as one text of ten tokens. T5 has three attentions: the encoder's over the source,
# the decoder's over the target, and the cross-attention from target to source. Put together they fill three corners of
# the same square. The fourth stays empty, because nothing leads back from the target to the source.

# %% tags=["demo"]
WORDS = 1_000  # size of the vocabulary

from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)


def bert(layers, d=64):
    return BertForMaskedLM(BertConfig(
        vocab_size=WORDS, hidden_size=d, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=4 * d, max_position_embeddings=1024, attn_implementation="eager",
    )).eval()


def gpt(layers, d=64):
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=WORDS, n_embd=d, n_layer=layers, n_head=4, n_positions=1024,
        bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )).eval()


def t5(layers, d=64):
    """`layers` in the encoder and as many in the decoder."""
    return T5ForConditionalGeneration(T5Config(
        vocab_size=WORDS, d_model=d, d_kv=d // 4, d_ff=4 * d, num_layers=layers, num_heads=4,
        decoder_start_token_id=0, attn_implementation="eager",
    )).eval()


def bart(layers, d=64):
    """`layers` in the encoder and as many in the decoder."""
    return BartForConditionalGeneration(BartConfig(
        vocab_size=WORDS, d_model=d, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=4 * d,
        decoder_ffn_dim=4 * d, max_position_embeddings=1024, attn_implementation="eager",
    )).eval()


def first_layer(weights):
    """The attention weights of the first layer, averaged over heads: [queries, keys]."""
    return weights[0][0].mean(0).detach()


SOURCE, TARGET = 6, 4
torch.manual_seed(0)
ids = torch.randint(1, WORDS, (1, SOURCE + TARGET))
two = t5(1)(input_ids=ids[:, :SOURCE], decoder_input_ids=ids[:, SOURCE:], output_attentions=True)
both = torch.zeros(SOURCE + TARGET, SOURCE + TARGET)
both[:SOURCE, :SOURCE] = first_layer(two.encoder_attentions)
both[SOURCE:, :SOURCE] = first_layer(two.cross_attentions)
both[SOURCE:, SOURCE:] = first_layer(two.decoder_attentions)
maps = {
    "BERT: encoder-only": first_layer(bert(1)(ids, output_attentions=True).attentions),
    "GPT-2: decoder-only": first_layer(gpt(1)(ids, output_attentions=True).attentions),
    "T5: encoder–decoder": both,
}

fig, axes = figure(1, 3, width=10.2, height=4.4, sharey=True)
middle = [(SOURCE - 1) / 2, SOURCE + (TARGET - 1) / 2]
for ax, (name, weights) in zip(axes, maps.items(), strict=True):
    ax.imshow(weights > 0, cmap="Blues", vmin=0, vmax=1.6)
    for line in (ax.axhline, ax.axvline):
        line(SOURCE - 0.5, color=COLORS[1], linewidth=1.5)
    ax.set_xticks(middle, ["source", "target"])
    ax.set_yticks(middle, ["source", "target"], rotation=90, va="center")
    ax.tick_params(length=0)
    ax.set(title=f"{name}\n{int((weights > 0).sum())} of {weights.numel()} pairs", xlabel="is seen")
axes[0].set_ylabel("sees")
ahead = {name: int((weights.triu(1) > 0).sum()) for name, weights in maps.items()}
show(
    fig,
    alt=f"Three square maps of the pairs with a weight above zero, of {(SOURCE + TARGET) ** 2}: " + ", ".join(
        f"{name} {int((weights > 0).sum())}, of them {ahead[name]} to a later token" for name, weights in maps.items()
    ) + ".",
    title="Pairs in which a token sees what comes after it: " + ", ".join(
        f"{name.partition(':')[0]} {count}" for name, count in ahead.items()),
)

# %% [markdown]
# Under three names stand the same kinds of layers with other masks. (T5 has an attention more, and its source and
# target pass through different weights; norms and positions differ as well.) What each is asked to guess comes below.
#
# ## Only the words before?
#
# "In a decoder, attention can only reach the words *before* the current one." Take that at its word, and a token can't
# see itself. Does it matter? We take the real model, read a page of Shakespeare, and hide one thing at a time in every
# layer: from each token itself, its neighbor, the one before that, and so on. If the sentence were exact, hiding a
# token from itself would change nothing. The lines are 95 % intervals over the page's tokens.
#
# **Before the run:** *wrong* if a token of GPT-2 looks ahead; *imprecise* if none does, but tokens see themselves;
# *correct* if neither.

# %% claim="A11.3"
model, tokenizer = smollm()
PAGE = tokenizer(shakespeare()[20_000:22_000], return_tensors="pt").input_ids[:, :96]
place = torch.arange(PAGE.shape[1])
distance = place[:, None] - place


def surprise(mask):
    """The real model's loss on each token of the page but the first, in nats, under a mask."""
    with torch.inference_mode():
        logits = model(PAGE, attention_mask=mask[None, None]).logits[0, :-1]
    return F.cross_entropy(logits.float(), PAGE[0, 1:], reduction="none")


causal = distance >= 0
usual = surprise(causal)
hidden = {}
for far, name in enumerate(("itself", "the token before", "2 back", "3 back", "4 back")):
    kept = causal & (distance != far)
    kept[:, 0] |= ~kept.any(1)  # somebody has to be seen: the first token may keep itself
    hidden[name] = interval(surprise(kept) - usual)

fig, ax = figure(width=8.4, height=3.0)
changes = [change.mean for change in hidden.values()]
ax.barh(list(hidden), changes, xerr=[change.high - change.mean for change in hidden.values()], capsize=3,
        color=[COLORS[1], *[COLORS[0]] * 4])
ax.invert_yaxis()
ax.axvline(0, color="black", linewidth=1)
ax.set(xlabel=f"change of the loss (nats a token; {usual.mean():.2f} with nothing hidden)",
       ylabel="hidden from every token")
show(
    fig,
    alt="Bars: the change of the real model's loss, in nats, when each token can't see "
    + ", ".join(f"{name} {change.mean:+.2f} ({change.text('+.2f')})" for name, change in hidden.items()) + ".",
    title=f"A token that can't see itself: {hidden['itself'].mean:+.2f} nats; "
    f"that can't see the token before: {hidden['the token before'].mean:+.2f}",
)
first_row = torch.zeros(1, 4).masked_fill(torch.arange(4) >= 0, -torch.inf).softmax(-1)
print("the first token's weights, if it sees only what stands before it:", first_row.tolist())
itself = int((maps["GPT-2: decoder-only"].diagonal() > 0).sum())
verdict(
    "A11.3",
    "wrong" if ahead["GPT-2: decoder-only"] else "imprecise" if itself else "correct",
    f"In GPT-2 {ahead['GPT-2: decoder-only']} pairs look ahead, and {itself} of {SOURCE + TARGET} tokens see "
    "themselves. In the "
    f"real model to hide each token from itself changes the loss by {hidden['itself'].text('+.2f')} nats (95 %), to "
    f"hide the token before it by {hidden['the token before'].text('+.2f')}.",
)

# %% [markdown]
# What can a token see, then, by the verdict's count? (The residual stream carries it past the attention anyway.) By
# the letter the first token would have nobody to look at: a softmax over nothing is NaN. Vaswani et al. (2017,
# arXiv:1706.03762, section 3.2.3) say it exactly: "up to and including that position".
#
# ## Exercise 1: who sees whom
#
# There is a fourth pattern between GPT and T5. A **prefix** model is one stack, as GPT, but what it is *given* is read
# in both directions, as by an encoder. Only what it *writes* is causal. T5's paper tried it (Raffel et al. 2019,
# arXiv:1910.10683, section 3.2.1); PaliGemma reads its picture and its question so.

# %% exercise="attention_pattern"
def attention_pattern(kind, n_source, n_target):
    """Who may see whom, in a text of n_source given tokens followed by n_target to be written.

    kind:               "encoder", "decoder", "prefix" or "encoder-decoder", spelt so; anything
                        else raises a ValueError
    n_source, n_target: ints of at least 0, of which one at least is above 0 (both are for
                        "encoder-decoder")
    Returns a bool tensor [n, n] with n = n_source + n_target, True where token i (row) may see
    token j (column):
      "encoder": everybody sees everybody
      "decoder": every token sees itself and what stands before it, whether given or written
      "prefix":  given tokens see all given ones and no other; a written token sees all given
                 ones, the written ones before it, and itself
    For "encoder-decoder" a dict of its three bool masks, True where the row may see the column:
      "encoder" [n_source, n_source]: everybody sees everybody
      "decoder" [n_target, n_target]: itself and what stands before it
      "cross"   [n_target, n_source]: every target sees the whole source

    Raffel et al. 2019, arXiv:1910.10683, section 3.2.1 and figure 3.
    """
    ### BEGIN SOLUTION
    n = n_source + n_target
    everybody = torch.ones(n, n, dtype=torch.bool)
    causal = everybody.tril()
    if kind == "encoder":
        return everybody
    if kind == "decoder":
        return causal
    if kind == "prefix":
        return causal | (torch.arange(n) < n_source)
    if kind == "encoder-decoder":
        return {
            "encoder": everybody[:n_source, :n_source],
            "decoder": causal[n_source:, n_source:],
            "cross": everybody[n_source:, :n_source],
        }
    raise ValueError(f"There is no kind {kind!r}.")
    ### END SOLUTION


# %% check="attention_pattern"
check(attention_pattern)

# %% [markdown]
# Your patterns inside the real model. It was trained as a decoder. What does it make of the page under another mask?
# The first half of the page is the source, the second the target. A fourth pattern is a control: an encoder's, but each
# token's *next* one hidden from it.

# %% tags=["payoff"]
half = PAGE.shape[1] // 2
patterns = {kind: attention_pattern(kind, half, PAGE.shape[1] - half)
            for kind in ("decoder", "prefix", "encoder")}
CONTROL = "encoder, next\ntoken hidden"
patterns[CONTROL] = patterns["encoder"] & (distance != -1)
losses = {name: surprise(pattern) for name, pattern in patterns.items()}
given = {name: float(loss[: half - 1].mean()) for name, loss in losses.items()}
written = {name: float(loss[half:].mean()) for name, loss in losses.items()}

fig, ax = figure(width=9, height=3.6)
for shift, (label, values), color, hatch in ((-0.2, ("first half (given)", given), COLORS[0], ""),
                                             (0.2, ("second half", written), COLORS[4], "//")):
    bars = ax.bar([i + shift for i in range(4)], values.values(), 0.38, color=color, hatch=hatch,
                  edgecolor="white", label=label)
    ax.bar_label(bars, fmt="%.1f", fontsize=10)
ax.set_xticks(range(4), list(patterns))
ax.set(ylabel="loss (nats a token)", xlabel="pattern in every layer of a model trained as a decoder",
       ylim=(0, 1.3 * max(*given.values(), *written.values())))
ax.legend(loc="upper left", ncols=2)
told = "too good to be true" if given["encoder"] < 0.7 * given["decoder"] else "not better"
show(
    fig,
    alt="Loss of the real model on the first and the second half of a page by attention pattern: " + ", ".join(
        f"{name} {given[name]:.1f} and {written[name]:.1f}".replace("\n", " ") for name in patterns
    ) + ".",
    title=f"An encoder's mask: {given['encoder']:.1f} instead of {given['decoder']:.1f} nats, {told}; "
    f"with the next token hidden {given[CONTROL]:.1f}",
)

# %% [markdown]
# Mind that number. Where a position can see the token it should predict, a low loss says nothing: the model reads the
# answer instead of guessing it. So an encoder can't be trained on the next token. It needs another task, and that is
# what the next two exercises are about.
#
# Is the prefix pattern a gift? Compare the second halves. The model has never met a prefix that is read both ways; it
# would have to be trained on it.
#
# ## What an encoder learns from: hide some words
#
# BERT hides words and asks for them. 15 % of the tokens are picked, and the loss looks at those alone. Of the picked
# ones
#
# * 80 % become the token `[MASK]`,
# * 10 % become some random token,
# * 10 % stay as they are.
#
# Why not always `[MASK]`? Because nobody writes `[MASK]` in earnest, and a model that is only ever asked at masks may
# do nothing elsewhere and lose nothing by it. With the other 20 %, every token it sees *may* be wrong or asked for
# (Devlin et al. 2018, arXiv:1810.04805, section 3.1 and appendix A.1).
#
# So that there is one right answer, chance comes from outside here: two uniform numbers for each token.
#
# ## Exercise 2: masking

# %% exercise="mask_tokens"
def mask_tokens(ids, special, pick, act, random_ids, mask_id, share=0.15):
    """What BERT reads, and what it is asked for.

    ids:        int64 tensor of any shape: the text. Not changed
    special:    bool, of that shape; True for padding and marks of all kinds, which are never
                picked
    pick, act:  float32, of that shape, from 0 to below 1. A token is picked where pick < share
                and it isn't special. A picked token becomes mask_id where act < 0.8, its
                random_ids where 0.8 <= act < 0.9, and stays what it is where act >= 0.9. What
                isn't picked stays, whatever act says
    random_ids: int64, of that shape: the random tokens, one for each place
    mask_id:    an int
    share:      a float from 0 to 1
    Returns (inputs, labels), new int64 tensors of that shape. Labels: the tokens of ids where
    picked, -100 elsewhere.

    Devlin et al. 2018, arXiv:1810.04805, section 3.1; as in transformers'
    DataCollatorForLanguageModeling each token is picked by itself, so the number picked varies.
    """
    ### BEGIN SOLUTION
    picked = (pick < share) & ~special
    masked, swapped = picked & (act < 0.8), picked & (act >= 0.8) & (act < 0.9)
    inputs = torch.where(masked, mask_id, torch.where(swapped, random_ids, ids))
    return inputs, ids.masked_fill(~picked, -100)
    ### END SOLUTION


# %% check="mask_tokens"
check(mask_tokens)

# %% tags=["payoff"]
LONG = tokenizer(shakespeare()[100_000:180_000], return_tensors="pt", verbose=False).input_ids[0]
ROWS = LONG[: len(LONG) // 64 * 64].view(-1, 64)
MASK = len(tokenizer)  # one id more than the tokenizer has
dice = torch.Generator().manual_seed(0)
pick, act = torch.rand(2, *ROWS.shape, generator=dice)
noise = torch.randint(len(tokenizer), ROWS.shape, generator=dice)
special = torch.isin(ROWS, torch.tensor(tokenizer.all_special_ids))
inputs, asked = mask_tokens(ROWS, special, pick, act, noise, MASK)


def spelled(tokens):
    """A row of tokens as text, with the mask shown."""
    return "".join(" [MASK]" if t == MASK else tokenizer.decode([t]) for t in tokens.tolist())


picked = asked != -100
kinds = {"[MASK]": inputs == MASK, "another token": (inputs != MASK) & (inputs != ROWS),
         "the same": inputs == ROWS}
shares = {name: float(hit[picked].float().mean()) for name, hit in kinds.items()}
print(f"{ROWS.numel():,} tokens, {picked.float().mean():.1%} picked; of these "
      + ", ".join(f"{share:.1%} {name}" for name, share in shares.items()))
print("\nTEXT:   ", spelled(ROWS[3, :40]).strip().replace("\n", " / "))
print("\nBERT READS:", spelled(inputs[3, :40]).strip().replace("\n", " / "))
print("\nAND IS ASKED FOR:", [tokenizer.decode([t]) for t in asked[3, :40].tolist() if t != -100])

# %% [markdown]
# ## What an encoder–decoder learns from: fill the gaps
#
# T5 cuts out whole **spans**, 15 % of the text in pieces of three tokens on average, and marks each gap with one
# **sentinel**. The encoder reads the text with its gaps; the decoder writes only what is missing, each piece announced
# by its sentinel. From the paper's figure 2:
#
# | | |
# |---|---|
# | text | Thank you for inviting me to your party last week . |
# | inputs | Thank you `<X>` me to your party `<Y>` week . |
# | targets | `<X>` for inviting `<Y>` last `<Z>` |
#
# The last sentinel says: that was all. In T5's vocabulary the sentinels stand at the very end and count *down*:
# `<extra_id_0>` is 32099, `<extra_id_1>` is 32098.
#
# ## Exercise 3: spans

# %% exercise="corrupt_spans"
def corrupt_spans(ids, noise, first_sentinel):
    """What T5's encoder reads, and what its decoder has to write.

    ids:            int64 tensor [n], n >= 1: the text
    noise:          bool tensor [n]; True where a token is missing. Neighbors that are missing
                    together are one span. None may be missing, or all, or the first or last
    first_sentinel: an int, above every id: the sentinel of the first span. That of span k,
                    counted from 0, is first_sentinel - k
    Returns (inputs, targets), two int64 tensors of one dimension. Inputs: the text with each
    span replaced by its sentinel. Targets: for each span, from left to right, its sentinel and
    then its tokens; and at the end one more sentinel, the next one that hasn't been used. No
    end-of-text token is added to either.

    Raffel et al. 2019, arXiv:1910.10683, sections 3.1.4 and 3.3.4.
    """
    ### BEGIN SOLUTION
    inputs, targets, sentinel, before = [], [], first_sentinel, False
    for token, missing in zip(ids.tolist(), noise.tolist(), strict=True):
        if missing and not before:
            inputs.append(sentinel)
            targets.append(sentinel)
            sentinel -= 1
        (targets if missing else inputs).append(token)
        before = missing
    return torch.tensor(inputs), torch.tensor([*targets, sentinel])
    ### END SOLUTION


# %% check="corrupt_spans"
check(corrupt_spans)

# %% [markdown]
# Where do the gaps come from? T5 decides how many tokens are missing and in how many spans, and then cuts both the
# missing and the kept tokens into that many random pieces, which take turns: kept first, missing last.

# %% tags=["demo"]
def pieces(total, count, generator):
    """`count` random lengths of at least 1 that add up to `total`."""
    cuts = torch.randperm(total - 1, generator=generator)[: count - 1].sort().values + 1
    return torch.diff(cuts, prepend=torch.tensor([0]), append=torch.tensor([total])).tolist()


def span_noise(n, generator, share=0.15, mean_length=3.0):
    """Which of n tokens are missing: bool [n], as T5's random_spans_noise_mask."""
    missing = max(1, round(n * share))
    count = max(1, round(missing / mean_length))
    turns = zip(pieces(n - missing, count, generator), pieces(missing, count, generator), strict=True)
    return torch.cat([torch.arange(kept + gone) >= kept for kept, gone in turns])


dice = torch.Generator().manual_seed(2)
gaps = torch.stack([span_noise(64, dice) for _ in range(24)])
fig, ax = figure(width=8.6, height=3.0)
ax.imshow(gaps, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
ax.set(xlabel="place in the text (dark: missing)", ylabel="one text a row")
spans = int((gaps & ~F.pad(gaps, (1, 0))[:, :-1]).sum())
show(fig, "Twenty-four rows of sixty-four places; the missing ones form short dark runs at random places.",
     title=f"{gaps.float().mean():.0%} of the tokens are missing, in spans of {gaps.sum() / spans:.1f} on average")

# %% tags=["payoff"]
LAST = len(tokenizer) + 100  # as if a hundred sentinels stood at the end of the vocabulary
read_by, told_by = corrupt_spans(ROWS[3], gaps[0], LAST - 1)


def with_sentinels(tokens):
    return "".join(f" <{LAST - 1 - t}>" if t >= len(tokenizer) else tokenizer.decode([t])
                   for t in tokens.tolist()).strip().replace("\n", " / ")


print("TEXT:   ", with_sentinels(ROWS[3]))
print("\nINPUTS: ", with_sentinels(read_by))
print("\nTARGETS:", with_sentinels(told_by))
print(f"\n{len(ROWS[3])} tokens became {len(read_by)} to read and {len(told_by)} to write.")

# %% [markdown]
# ## What a decoder learns from: the next token
#
# GPT needs no special data. The text is its own answer sheet, moved by one place: position $i$ reads token $i$ and is
# scored on token $i + 1$. A decoder that answers an encoder moves the other way round: its *inputs* go one place to the
# right behind a start token, and its labels stay. Both mean the same: no position may see its own label.
#
# This little shift is a classic source of bugs. transformers' models shift the labels themselves, inside the loss; many
# training loops shift them before. Do both, and the model learns to skip a word; do neither, and it learns to copy.
#
# ## Exercise 4: shift

# %% exercise="shift_labels"
def shift_labels(ids, real, kind, start, pad):
    """What a decoder reads, and on which token each of its positions is scored.

    ids:   int64 tensor [rows, n]: a text for "decoder", the answer for "encoder-decoder". Not
           changed
    real:  bool tensor [rows, n]; False marks padding, at either end. It alone tells what is
           padding: a real token may have the padding's id, and there may be anything under the
           padding
    kind:  "decoder": the inputs are ids as they are; position i is scored on the token at place
           i + 1
           "encoder-decoder": the inputs are `start` followed by the ids but the last of each
           row, where padding becomes `pad`; position i is scored on the token at place i
           anything else, as "Decoder" or "": a ValueError
    start: an int: the token by which an answer begins
    pad:   an int: the token that is read where there is padding (in an encoder-decoder)
    A position is scored on -100, which the loss skips, where there is no such token or it is
    padding.
    Returns (inputs, labels), int64 tensors [rows, n].

    The shifts of transformers' ForCausalLMLoss, and of BART's shift_tokens_right.
    """
    ### BEGIN SOLUTION
    labels = ids.masked_fill(~real, -100)
    if kind == "decoder":
        return ids.clone(), F.pad(labels[:, 1:], (0, 1), value=-100)
    if kind == "encoder-decoder":
        return F.pad(ids.masked_fill(~real, pad)[:, :-1], (1, 0), value=start), labels
    raise ValueError(f"There is no kind {kind!r}.")
    ### END SOLUTION


# %% check="shift_labels"
check(shift_labels)

# %% [markdown]
# Your shifts against transformers' own: the real decoder's loss on two lines of different lengths, and that of a small
# T5.

# %% tags=["payoff"]
lines = ["To be, or not to be, that is the question.", "All the world's a stage."]
tokenizer.padding_side = "right"
batch = tokenizer(lines, return_tensors="pt", padding=True)
real = batch.attention_mask.bool()
reads, asked_next = shift_labels(batch.input_ids, real, "decoder", start=0, pad=0)
with torch.inference_mode():
    theirs = model(**batch, labels=batch.input_ids.masked_fill(~real, -100)).loss
    logits = model(reads, attention_mask=batch.attention_mask).logits
    yours = F.cross_entropy(logits.flatten(0, 1), asked_next.flatten())
print(f"SmolLM: {yours:.4f} with your labels, {theirs:.4f} by transformers")

torch.manual_seed(1)
small = t5(2)
answer, whole = torch.randint(3, WORDS, (2, 6)), torch.arange(6) < torch.tensor([[6], [4]])
reads, asked_next = shift_labels(answer, whole, "encoder-decoder", start=0, pad=0)
with torch.inference_mode():
    theirs = small(input_ids=answer, labels=answer.masked_fill(~whole, -100)).loss
    logits = small(input_ids=answer, decoder_input_ids=reads).logits
    yours = F.cross_entropy(logits.flatten(0, 1), asked_next.flatten())
print(f"T5:     {yours:.4f} with your inputs and labels, {theirs:.4f} by transformers")

# %% [markdown]
# Now you have all three tasks, and can count lessons: of the tokens that a model reads, how many are scored? (For T5
# encoder and decoder both read; a sentinel to be written is a lesson, too.)

# %% tags=["payoff"]
everything_real = torch.ones_like(ROWS, dtype=torch.bool)
_, next_labels = shift_labels(ROWS, everything_real, "decoder", start=0, pad=0)
dice = torch.Generator().manual_seed(3)
corrupted = [corrupt_spans(row, span_noise(64, dice), LAST - 1) for row in ROWS]
t5_read = sum(len(a) + len(b) for a, b in corrupted)
scored = {
    "BERT: masked tokens": float((asked != -100).float().mean()),
    "T5: spans": sum(len(b) for _, b in corrupted) / t5_read,
    "GPT: next token": float((next_labels != -100).float().mean()),
}
fig, ax = figure(width=8.2, height=2.6)
ax.bar_label(ax.barh(list(scored), [100 * x for x in scored.values()], color=COLORS[:3]),
             fmt="%.1f %%", padding=3)
ax.invert_yaxis()
ax.set(xlim=(0, 115), xlabel=f"tokens with a loss, % of those read ({ROWS.numel():,} tokens of text)")
show(fig, "Bars: the share of tokens with a loss. " + ", ".join(f"{name} {x:.1%}" for name, x in scored.items()) + ".",
     title=f"From the same text GPT gets {scored['GPT: next token'] / scored['BERT: masked tokens']:.1f} times "
     "as many lessons as BERT")

# %% [markdown]
# ## Is it the data?
#
# "Data is easy to collect: most decoder-only models train by self-supervision on unlabeled text." You have just built
# three tasks, and none needed a label. BERT and T5 live on the same raw text. What may set GPT apart is the number of
# *lessons* in it. So another argument goes: "every token gives a training signal". How much is that worth?
#
# The test: a model of two layers reads bytes of Shakespeare, always the same ones in the same order. Once it is scored
# on every next byte, once on a random 15 % of them. Nothing else changes. If lessons were everything, the second would
# need 1 / 0.15 = 6.7 times the text. To be fair to both, the full signal is trained several times, for fewer and fewer
# steps, each with a learning-rate schedule of its own: how short may it be and still end as low? A third run is an
# encoder with BERT's task, asked for the hidden bytes of the same unseen text. That is another question: it sees both
# sides, and it gets three times the steps. All have one learning rate, 0.01 at its peak; another might suit one of them
# better.
#
# **Before the run:** a model *learns* if its loss ends below what is reached by knowing how often each byte occurs, and
# nothing else. *Correct* if the decoder learns from unlabeled text and the encoder doesn't, *imprecise* if both do:
# then it is no advantage over an encoder. *Wrong* if the decoder doesn't. (A first rule, a fall of half a nat, was
# passed by those frequencies, and by an encoder of 100 steps that was no better than they are.)

# %% claim="A11.8"
import numpy as np
from transformers import DataCollatorForLanguageModeling, LlamaConfig, LlamaForCausalLM

N, BATCH, STEPS, EVERY, PART = 48, 8, 100, 10, 0.15
plays = shakespeare()
old, unseen = (torch.tensor(list(part.encode()))
               for part in (plays[:1_000_000], plays[3_000_000:3_060_000]))
EVERYBODY = torch.ones(1, 1, N, N, dtype=torch.bool)
often = torch.bincount(old, minlength=256) + 1.0  # 1 more, so that no byte is impossible
frequencies = -float((often / often.sum()).log()[unseen].mean())  # the loss of who knows these alone


class Bytes:
    """As much of a tokenizer as the collator needs: 256 bytes, and a mask."""

    mask_token = "[MASK]"

    def __len__(self):
        return 256

    def convert_tokens_to_ids(self, token):
        return 256


def cut(data, rows, g):
    """Pieces from random places: (the piece, the same one byte on)."""
    starts = torch.randint(len(data) - N, (rows, 1), generator=g)
    return data[starts + torch.arange(N)], data[starts + torch.arange(N) + 1]


def lesson(kind, text, following, g, collator):
    """(inputs, labels) of one step."""
    if kind == "encoder":
        return collator.torch_mask_tokens(text.clone(), torch.zeros_like(text))
    scored = torch.rand(text.shape, generator=g) < (1.0 if kind == "all" else PART)
    return text, following.masked_fill(~scored, -100)


def loss_of(net, kind, inputs, labels):
    mask = EVERYBODY.expand(len(inputs), 1, N, N) if kind == "encoder" else None
    logits = net(inputs, attention_mask=mask).logits
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def learning_curve(kind, seed, steps=STEPS):
    """The loss on unseen text, every few steps of a training of so many."""
    torch.manual_seed(seed)
    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=170, num_hidden_layers=2,
        num_attention_heads=4, initializer_range=0.12, tie_word_embeddings=True,
        pad_token_id=None, bos_token_id=None, eos_token_id=None))
    collator = DataCollatorForLanguageModeling(Bytes(), mlm_probability=PART)
    collator.generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.01, fused=True)
    order, coins = (torch.Generator().manual_seed(seed + k) for k in (100, 200))
    texts, curve = cut(unseen, 32, torch.Generator().manual_seed(5)), []
    gaps = torch.rand(texts[0].shape, generator=torch.Generator().manual_seed(6)) < PART
    test = (texts if kind != "encoder"
            else (texts[0].masked_fill(gaps, 256), texts[0].masked_fill(~gaps, -100)))
    for step in range(steps + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                curve.append(float(loss_of(net, kind, *test)))
        optimizer.param_groups[0]["lr"] = 1e-2 * min((step + 1) / 10, 1.02 - step / steps)
        optimizer.zero_grad()
        loss_of(net, kind, *lesson(kind, *cut(old, BATCH, order), coins, collator)).backward()
        optimizer.step()
    return curve


threads = torch.get_num_threads()
torch.set_num_threads(1)  # so small a model is slower on two
RUNS = {"all": "decoder, every byte scored", "some": "decoder, 15 % scored",
        "encoder": "encoder, 15 % hidden and asked for"}
LENGTHS = {"all": STEPS, "some": STEPS, "encoder": 3 * STEPS}
curves = {kind: torch.tensor([learning_curve(kind, seed, LENGTHS[kind]) for seed in range(2)]) for kind in RUNS}
SHORTER = [20, 30, 40, 50, 60]
ends = torch.tensor([[learning_curve("all", seed, steps)[-1] for steps in SHORTER] for seed in range(2)])
torch.set_num_threads(threads)

seen = torch.arange(0, max(LENGTHS.values()) + 1, EVERY) * BATCH * N
means = {kind: values.mean(0) for kind, values in curves.items()}
needed = [  # of each seed the fewest steps, between two trainings, that end as low as the 15 %
    float(np.interp(-float(goal), [-loss for loss in row.tolist()], SHORTER, left=np.nan, right=np.nan))
    for goal, row in zip(curves["some"][:, -1], ends, strict=True)
]
ratios = [STEPS / steps for steps in needed]
times = sum(ratios) / len(ratios)

fig, ax = figure(width=9, height=3.9)
for (kind, values), color, style in zip(curves.items(), COLORS, ("-", "--", ":"), strict=False):
    for seed, row in enumerate(values):
        ax.plot(seen[: len(row)] / 1000, row, color=color, linestyle=style, linewidth=1.8,
                label=None if seed else RUNS[kind])
ax.axhline(frequencies, color="#777777", linewidth=1, label="the bytes' frequencies alone")
ax.set(xlabel="text read (thousand bytes)", ylabel="loss on unseen text\n(nats a byte asked for)",
       ylim=(float(means["all"][-1]) - 0.2, 4.2))
ax.legend(loc="upper right")
show(
    fig,
    alt="Learning curves, two seeds each; the loss at the end: "
    + "; ".join(f"{RUNS[kind]} {mean[-1]:.2f}" for kind, mean in means.items())
    + f"; the bytes' frequencies alone {frequencies:.2f}.",
    title=f"With 15 % of the lessons the same loss takes {times:.1f} × the text; counting says {1 / PART:.1f} ×",
)
print("the full signal, trained for fewer steps, ends at " + ", ".join(
    f"{loss:.2f} ({steps} steps)" for steps, loss in zip(SHORTER, ends.mean(0), strict=True)))
learned = [name for kind, name in RUNS.items() if means[kind][-1] < frequencies]
verdict(
    "A11.8",
    "wrong" if RUNS["all"] not in learned else "imprecise" if RUNS["encoder"] in learned else "correct",
    f"Below the {frequencies:.2f} nats of the bytes' frequencies end, from the same unlabeled bytes: "
    f"{'; '.join(learned)}. What differs is how many lessons they take from them: with 15 % the same loss takes "
    f"{' and '.join(f'{ratio:.1f}' for ratio in ratios)} times the text (two seeds).",
)

# %% [markdown]
# Who learns from unlabeled text, the verdict says. What only the decoder has: every token of it is scored. Is that
# worth what counting says? At this size a step of few lessons is mostly *noisy*, and how much noise hurts depends on
# the batch; with larger batches the ratio may be another. Take it as one measurement.
#
# The encoder's curve is a warning for both sides of the argument: it is another task, and this run is far too short to
# say where it would end. Two remedies for few lessons have been tried: ask about every token (ELECTRA, Clark et al.
# 2020, arXiv:2003.10555), or hide more (Wettig et al. 2022, arXiv:2202.08005).
#
# ## What is in the box
#
# Before we compare costs: how many parameters have the families, at the same width? T5 and BART with two layers in each
# half stand beside BERT with two, and GPT with two and with four. (T5 has no table of absolute positions, BART has
# two.)

# %% tags=["demo"]
KINDS = {  # the first pattern that a parameter's name contains says what it belongs to
    "cross-attention": ("EncDec", "encoder_attn"),
    "embeddings": ("embed", "wte", "wpe", "shared"),
    "self-attention": ("attention.", "attn", "SelfAttention"),
    "feed-forward": ("mlp", "Dense", "intermediate", "output.dense", "fc1", "fc2"),
}


def parameters(net):
    """How many parameters each part of a model has."""
    found = dict.fromkeys([*KINDS, "rest"], 0)
    for name, weight in net.named_parameters():
        part = next((k for k, words in KINDS.items() if any(w in name for w in words)), "rest")
        found[part] += weight.numel()
    return found


WIDTH, LAYERS = 128, 2
boxes = {"BERT, 2 layers": bert(LAYERS, WIDTH), "GPT, 2 layers": gpt(LAYERS, WIDTH),
         "GPT, 4 layers": gpt(2 * LAYERS, WIDTH), "T5, 2 + 2 layers": t5(LAYERS, WIDTH),
         "BART, 2 + 2 layers": bart(LAYERS, WIDTH)}
counts = {name: parameters(net) for name, net in boxes.items()}
total = {name: sum(parts.values()) for name, parts in counts.items()}

fig, ax = figure(width=9, height=3.2)
left = dict.fromkeys(counts, 0.0)
for part, color in zip([*KINDS, "rest"], (COLORS[1], COLORS[6], COLORS[0], COLORS[2], "#bbbbbb"), strict=True):
    ax.barh(list(counts), [parts[part] / 1e6 for parts in counts.values()], left=list(left.values()),
            color=color, edgecolor="white", label=part)
    left = {name: left[name] + parts[part] / 1e6 for name, parts in counts.items()}
ax.invert_yaxis()
ax.set(xlabel=f"million parameters (width {WIDTH}, {WORDS:,} words)")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
crossing = counts["T5, 2 + 2 layers"]["cross-attention"] / total["T5, 2 + 2 layers"]
show(fig, "Stacked bars of parameters by part, in all: "
          + ", ".join(f"{name}, {count / 1e6:.2f} million" for name, count in total.items()) + ".",
     title=f"{crossing:.0%} of T5 is cross-attention. In all it has {total['T5, 2 + 2 layers']:,} parameters, "
     f"a GPT of 4 layers {total['GPT, 4 layers']:,}")

# %% [markdown]
# ## One stage or two: who is cheaper?
#
# "Decoder-only is computationally more efficient, because it only has to deal with generation and not with two stages,
# encoding and decoding." A decoder-only model has to read its prompt, too: that is called **prefill**, and it goes
# through *all* of its layers. In an encoder–decoder a prompt token meets the encoder's layers (and the
# cross-attention's matrices for keys and values), a written token the decoder's.
#
# So let transformers' own `generate`, with its cache, write 32 tokens after 32, and 8 after 56, and 56 after 8, and
# count the operations of every matrix product. The weights are random: what is counted doesn't depend on them.
#
# **Before the run:** at equal size, *correct* if T5 does more work than the decoder-only model in all three splits,
# *imprecise* if in some, *wrong* if in none. (The T5 paper counted on paper, in section 3.2.2, so the verdict can be
# known before. We ask real models, cross-attention and all.)

# %% claim="A11.7"
from labkit.flops import Flops  # torch's own counter gives attention 0 on a CPU


def operations(run):
    with Flops() as counter, torch.inference_mode():
        run()
    return counter.get_total_flops()


def exchange(net, n_source, n_target):
    """What it takes to read n_source tokens and write n_target, in operations."""
    prompt = torch.arange(1, n_source + 1)[None]
    return operations(lambda: net.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=n_target,
        min_new_tokens=n_target, do_sample=False, pad_token_id=0))


TASKS = {"summary\n56 → 8": (56, 8), "translation\n32 → 32": (32, 32), "story\n8 → 56": (8, 56)}
RIVALS = ("GPT, 4 layers", "T5, 2 + 2 layers", "GPT, 2 layers")
work = {name: [exchange(boxes[name], *task) / 1e6 for task in TASKS.values()] for name in RIVALS}

fig, ax = figure(width=9, height=3.8)
for i, ((name, values), color) in enumerate(zip(work.items(), (COLORS[0], COLORS[1], COLORS[5]), strict=True)):
    bars = ax.bar([k + 0.27 * (i - 1) for k in range(3)], values, 0.26, color=color,
                  label=f"{name} ({total[name] / 1e6:.1f} M parameters)")
    ax.bar_label(bars, fmt="%.0f", fontsize=10)
ax.set_xticks(range(3), list(TASKS))
ax.set(ylabel="million operations", xlabel="tokens read → tokens written", ylim=(0, 1.45 * max(work[RIVALS[0]])))
ax.legend(loc="upper left", ncols=3, fontsize=9)
ratios = [b / a for a, b in zip(work[RIVALS[0]], work[RIVALS[1]], strict=True)]
two_halves = exchange(boxes["BART, 2 + 2 layers"], 32, 32) / 1e6
show(
    fig,
    alt="Bars of million operations for reading and writing 64 tokens in three splits: " + "; ".join(
        f"{name} {', '.join(f'{value:.0f}' for value in values)}" for name, values in work.items()
    ) + ".",
    title=f"T5 ({total[RIVALS[1]] / 1e6:.2f} M parameters) does {min(ratios):.0%} to {max(ratios):.0%} of the work "
    f"of a GPT with {total[RIVALS[0]] / 1e6:.2f} M",
)
print(f"BART, built like T5, needs {two_halves:.0f} million for 32 → 32, T5 {work[RIVALS[1]][1]:.0f} million")
verdict(
    "A11.7",
    "correct" if min(ratios) > 1 else "imprecise" if max(ratios) > 1 else "wrong",
    f"With {total[RIVALS[1]] / 1e6:.2f} M parameters T5 does {min(ratios):.0%} to {max(ratios):.0%} of the work of a "
    "GPT with "
    f"{total[RIVALS[0]] / 1e6:.2f} M.",
)

# %% [markdown]
# Each token passes only one of the two stages. (GPT's table of positions is part of its parameters here; without such a
# table, as with RoPE, a GPT of equal size has more layers still, and T5 does about half of its work: the T5 paper says
# so itself, section 3.2.2.) Of two models of the same size the one with a single stage works harder for every token,
# and it may well be better for it.
#
# ## Where one stack may save: the next question
#
# A chat goes on. What has been read stays where it was, and a causal mask guarantees that nothing said later changes
# it: the keys and values of the whole conversation can be kept. An encoder reads in both directions. A new sentence
# changes what every old one looks like, so it has to read the conversation again from the start.
#
# Turns of 12 tokens of question and 12 of answer, operations added up:

# %% tags=["demo"]
from transformers import DynamicCache

TURNS, ASKED, ANSWERED = 6, 12, 12


def chat_with_gpt(net):
    """Operations of each turn; the cache is handed on."""
    cache, used = DynamicCache(config=net.config), []
    for turn in range(TURNS):
        def one_turn(unread=ASKED + (turn > 0)):  # the last token of an answer is still unread
            for n in [unread] + [1] * (ANSWERED - 1):
                net(torch.ones(1, n, dtype=torch.int64), past_key_values=cache, logits_to_keep=1)
        used.append(operations(one_turn))
    return torch.tensor(used).cumsum(0) / 1e9


def chat_with_t5(net):
    """Operations of each turn; the encoder reads all that was said."""
    said = [ASKED + turn * (ASKED + ANSWERED) for turn in range(TURNS)]
    return torch.tensor([exchange(net, n, ANSWERED) for n in said]).cumsum(0) / 1e9


sums = {"GPT, 4 layers, cache handed on": chat_with_gpt(boxes["GPT, 4 layers"]),
        "T5, 2 + 2 layers": chat_with_t5(boxes["T5, 2 + 2 layers"])}
fig, ax = figure(width=8.6, height=3.5)
for (name, values), color, mark in zip(sums.items(), COLORS, "os", strict=False):
    ax.plot(range(1, TURNS + 1), values, color=color, marker=mark, label=name)
ax.set(xlabel="turn of the conversation", ylabel="operations so far\n(thousand million)", ylim=(0, None))
ax.legend(loc="upper left")
one_stack, two_stacks = sums.values()
cheaper = [turn for turn in range(TURNS) if one_stack[turn] < two_stacks[turn]]
show(
    fig,
    alt="Operations added up over the turns, from the first to the last, in thousand millions: "
    + ", ".join(f"{name} {values[0]:.2f} to {values[-1]:.2f}" for name, values in sums.items()) + ".",
    title=f"T5 did {two_stacks[0] / one_stack[0]:.0%} of the decoder-only model's work after one turn, "
    f"{two_stacks[-1] / one_stack[-1]:.0%} after {TURNS}",
)
print(f"decoder-only is ahead after {f'turn {cheaper[0] + 1}' if cheaper else 'none of the turns'}")

# %% [markdown]
# If decoder-only is ahead in the end, that is a reason of another kind than the one in the notes. It isn't about
# stages: it is about a mask under which the past never changes. Such a mask also lets many users share one long system
# prompt, read once (prefix caching).
#
# ## Does it write efficiently?
#
# "Autoregressive models efficiently generate fluent, coherent long text." Of that we test *efficiently*. To read, a
# decoder takes all tokens at once. To write, it takes one, waits for the choice, and takes the next. We measure one
# token's share of the work and of the time on the real model: reading 160 tokens; writing the next one with a cache;
# writing it without.
#
# **Before the run:** *correct* if even without a cache a written token needs under twice a read token's operations,
# *imprecise* if only with one, *wrong* if not even then. The first can't be, since without a cache the whole text is
# read again. What is open is the second, and the time.

# %% claim="A11.6"
CONTEXT = 160
text = tokenizer(shakespeare()[20_000:22_000], return_tensors="pt").input_ids[:, : CONTEXT + 1]


def best_time(run, times=3):
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


caches = []


def read_all():
    caches.append(DynamicCache(config=model.config))
    model(text[:, :-1], past_key_values=caches[-1], logits_to_keep=1)


def write_with_cache():
    model(text[:, -1:], past_key_values=caches[-1], logits_to_keep=1)


def write_without():
    model(text, use_cache=False, logits_to_keep=1)


WAYS = {"reading": (read_all, CONTEXT), "writing, with a cache": (write_with_cache, 1),
        "writing, without": (write_without, 1)}
with torch.inference_mode():
    times = {name: best_time(run, 2) / n for name, (run, n) in WAYS.items()}
    flops = {name: operations(run) / n for name, (run, n) in WAYS.items()}
fig, (left, right) = figure(1, 2, width=10, height=2.6, sharey=True)
for ax, values, label, form in ((left, flops, "operations in the weight matrices\n(million a token)", ",.0f"),
                                (right, times, "time (ms a token)", ",.1f")):
    scaled = [x * (1e3 if ax is right else 1e-6) for x in values.values()]
    ax.scatter(scaled, range(3), color=COLORS[:3], s=70)
    ax.grid(axis="x")
    for row, x in enumerate(scaled):
        ax.annotate(format(x, form), (x, row), textcoords="offset points", xytext=(8, -4))
    ax.set(xscale="log", xlabel=label, xlim=(min(scaled) / 2, 8 * max(scaled)), ylim=(2.6, -0.6))
    ax.set_yticks(range(3), list(values))
slower = times["writing, with a cache"] / times["reading"]
saved = times["writing, without"] / times["writing, with a cache"]
show(
    fig,
    alt="Dots on logarithmic axes, million operations and milliseconds a token: " + "; ".join(
        f"{name} {flops[name] / 1e6:,.0f} and {1e3 * times[name]:.1f}" for name in WAYS
    ) + ".",
    title=f"A written token takes {slower:.1f} × the time of a read one; without a cache another {saved:.0f} ×",
)
as_reading, plain = (flops[name] / flops["reading"] for name in list(WAYS)[1:])
verdict(
    "A11.6",
    "correct" if plain < 2 else "imprecise" if as_reading < 2 else "wrong",
    f"A written token costs {as_reading:.1f} times the operations of a read one with a cache, {plain:.0f} times "
    "without; in "
    f"time {slower:.1f} times with a cache, on this machine.",
)

# %% [markdown]
# Does time part from operations? To write one token all weights are fetched from memory and each is used once; to
# read 160 tokens they are fetched once and used 160 times. Writing is limited by memory, and every token waits for the
# one before. "Efficient" is what the cache, batching and much engineering have made of it.
#
# ## Exercise 5: write with a cache
#
# The loop of every chat program. The model is any function `read(tokens, cache)`; it takes what is *new* and gives back
# logits and a cache that holds it, too. The trap is the bookkeeping: what has been read already, and what hasn't?

# %% exercise="generate_with_cache"
def generate_with_cache(read, ids, steps, cache=None):
    """Continue every row of a text by its likeliest tokens, reading nothing twice.

    read:  a decoder: read(tokens, cache) takes new tokens, int64 [rows, m], and the cache that
           an earlier call gave (None: nothing was read yet). It returns (logits, cache): logits
           [rows, m, vocabulary] score what follows each of the m tokens; the cache holds these
           m tokens, too, and takes the old one's place. What a cache is made of is read's
           own business: only hand it on
    ids:   int64 tensor [rows, n], n >= 1: text that isn't in the cache yet. Not changed
    steps: how many tokens are wanted, an int of at least 1
    cache: what an earlier call of this function gave back, or None: nothing was read yet
    The first call of read takes all of ids at once; each further one takes the newest token of
    every row, [rows, 1]. In all read is called `steps` times. Each new token is the one with
    the highest logit, row by row.
    Returns (new, cache): new is int64 [rows, steps], without ids; cache is that of the last
    read. It holds everything but the last new token. To go on later, hand it in together with
    ids that begin with that token.

    Pope et al. 2022, arXiv:2211.05102, section 2: prefill and decode.
    """
    ### BEGIN SOLUTION
    new = []
    for _ in range(steps):
        logits, cache = read(ids, cache)
        ids = logits[:, -1:].argmax(-1)
        new.append(ids)
    return torch.cat(new, 1), cache
    ### END SOLUTION


# %% check="generate_with_cache"
check(generate_with_cache)

# %% [markdown]
# ## Payoff: the real model writes
#
# Two ways to be `read`. One hands the library's cache on. The other has no cache: what it calls one is the text so far,
# and it reads all of it again. Your loop can't tell them apart, and the tokens should be the same. And the same as
# those of transformers' own `generate`.

# %% tags=["payoff"]
clock, lengths = [], []


def read_with_cache(tokens, cache):
    cache = DynamicCache(config=model.config) if cache is None else cache
    with torch.inference_mode():
        logits = model(tokens, past_key_values=cache).logits
    clock.append(time.perf_counter())
    lengths.append(tokens.shape[1])
    return logits, cache


def read_again(tokens, text):
    text = tokens if text is None else torch.cat([text, tokens], 1)
    with torch.inference_mode():
        logits = model(text, use_cache=False, logits_to_keep=tokens.shape[1]).logits
    clock.append(time.perf_counter())
    lengths.append(text.shape[1])
    return logits, text


start = tokenizer("The most important thing about a good question is", return_tensors="pt")
NEW, runs = 24, {}
for name, read in (("with a cache", read_with_cache), ("without", read_again)):
    clock[:], lengths[:] = [time.perf_counter()], []
    made, _ = generate_with_cache(read, start.input_ids, NEW)
    runs[name] = made, torch.tensor(clock).diff() * 1e3, sum(lengths)
theirs = model.generate(**start, max_new_tokens=NEW, min_new_tokens=NEW)[:, start.input_ids.shape[1] :]
made, _, few = runs["with a cache"]
again, _, many = runs["without"]
print(f"the same tokens with and without a cache: {int((made == again).sum())} of {NEW}; "
      f"as transformers' generate: {int((made == theirs).sum())} of {NEW}\n")
print(tokenizer.decode([*start.input_ids[0], *made[0]]))

fig, ax = figure(width=8.8, height=3.5)
for (name, (_, milliseconds, _)), color, mark in zip(runs.items(), COLORS, "os", strict=False):
    rate = 1e3 * NEW / float(milliseconds.sum())
    ax.plot(range(1, NEW + 1), milliseconds, color=color, marker=mark, markersize=4, linewidth=1.2,
            label=f"{name}: {rate:.0f} tokens a second")
ax.set(xlabel="new token", ylabel="time (ms)", ylim=(0, None))
ax.legend()
show(
    fig,
    alt="Milliseconds for each new token, mean of the first and of the second half: " + "; ".join(
        f"{name} {float(ms[1 : NEW // 2].mean()):.0f} and {float(ms[NEW // 2 :].mean()):.0f}"
        for name, (_, ms, _) in runs.items()) + ".",
    title=f"{NEW} tokens written: {few} tokens read with a cache, {many:,} without",
)

# %% [markdown]
# And a conversation, in which your cache is handed from turn to turn. At the end we let transformers answer the last
# question from the whole conversation at once, nothing kept.

# %% tags=["payoff"]
questions = ["Tell me a story about a clever fox.", "What does the fox do next?", "How does the story end?"]
asks = ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"]
conversation, cache, last, per_turn = torch.empty(1, 0, dtype=torch.int64), None, None, []
for question in questions:
    # The model's own mark closes the answer before; the last token of that answer is still unread.
    opening = ("<|im_end|>\n" if last is not None else "") + asks[0] + question + asks[1]
    ids = tokenizer(opening, return_tensors="pt", add_special_tokens=False).input_ids
    conversation = torch.cat([conversation, ids], 1)
    lengths.clear()
    answer, cache = generate_with_cache(read_with_cache, ids if last is None else torch.cat([last, ids], 1), 16, cache)
    before, last = conversation, answer[:, -1:]
    conversation = torch.cat([conversation, answer], 1)
    per_turn.append((sum(lengths), before.shape[1] + answer.shape[1] - 1))
    print(f"{question}\n    {tokenizer.decode(answer[0], skip_special_tokens=True).strip()!r}")
theirs = model.generate(before, attention_mask=torch.ones_like(before), max_new_tokens=16, min_new_tokens=16)
agree = int((theirs[:, before.shape[1] :] == answer).sum())
print(f"\nthe last answer, from the whole conversation at once: {agree} of 16 tokens the same")
for turn, (kept, anew) in enumerate(per_turn, 1):
    print(f"turn {turn}: {kept} tokens read with the cache handed on, {anew} if each turn begins anew")

# %% [markdown]
# ## What to remember
#
# * The families differ by mask and task: full and hidden words (BERT), causal and next token (GPT), both with a
#   cross-attention and gaps to fill (T5, BART). A prefix model is an encoder–decoder in one stack.
# * Causal means up to *and including* the current token.
# * In an exchange decoder-only takes its prompt through all layers: at equal size about twice the work (T5 says so in
#   its section 3.2.2). In a conversation the past never changes, and its cache can be kept.
# * Every token is a lesson. What that is worth in text, you have measured once; the count alone doesn't say it.
# * What speaks for it, then: one stack, one loss, one kind of data from pre-training to chat, so it scales simply; the
#   most lessons per token; caches that can be kept and shared. (Every task as text in and text out: T5 has that, too.)
#   After plain pre-training it was the best of six combinations at tasks it had never seen. With multitask fine-tuning
#   on top, a model that sees its input both ways, trained with masks, was better (Wang et al. 2022, arXiv:2204.05832).
# * What one took an encoder for is done by decoders, too: filling a gap, by moving it to the end of the text (*FIM*,
#   Bavarian et al. 2022, [arXiv:2207.14255](https://arxiv.org/abs/2207.14255)), and embedding texts, by the last
#   token's state (Qwen3 Embedding, Zhang et al. 2025, [arXiv:2506.05176](https://arxiv.org/abs/2506.05176)). The other
#   way, T5Gemma makes an encoder–decoder of a trained decoder (Zhang et al. 2025,
#   [arXiv:2504.06225](https://arxiv.org/abs/2504.06225)).
#
# **Sources.** Devlin et al. 2018, [arXiv:1810.04805](https://arxiv.org/abs/1810.04805) (BERT); Raffel et al. 2019,
# [arXiv:1910.10683](https://arxiv.org/abs/1910.10683) (T5, and the comparison of architectures); Lewis et al. 2019,
# [arXiv:1910.13461](https://arxiv.org/abs/1910.13461) (BART); Wang et al. 2022,
# [arXiv:2204.05832](https://arxiv.org/abs/2204.05832); Clark et al. 2020,
# [arXiv:2003.10555](https://arxiv.org/abs/2003.10555) (ELECTRA); Wettig et al. 2022,
# [arXiv:2202.08005](https://arxiv.org/abs/2202.08005); Pope et al. 2022,
# [arXiv:2211.05102](https://arxiv.org/abs/2211.05102) (what writing costs).
