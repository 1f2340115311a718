# ---
# jupyter:
#   course:
#     title: "Fine-tuning: what a model learns from your examples"
#     exercises: applications.finetuning
#     questions: [A04, A13, A01]
#     needs: [02_applications/01_decoder_only]
# ---

# %% [markdown]
# # Fine-tuning: what a model learns from your examples
#
# You have a chat model, and a few dozen examples of what you want from it. **Supervised fine-tuning** (SFT, 监督微调)
# goes on training on them. It works in minutes on a laptop, and it is easy to do wrong without noticing.
#
# The interview questions: **when do you fine-tune, and when do you retrieve (RAG)? And from which model do you start,
# base or chat?** The usual notes say: fine-tuning customizes a model and touches 1 to 5 % of its weights; it is hard to
# control, so avoid it; chat models are for dialogue, base models for the rest. Here you build each part (labels,
# packing, LoRA, four-bit weights), tune a real model, and put the sentences to the test.
#
# What needs minutes has been run before and is kept with the course; a slice of each runs again before your eyes.

# %% tags=["setup"]
import copy
import random

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, batches, evidence, figure, give_back, interval, show, smollm, verdict


def signed(each, digits=0):
    """An interval with signs: shares in points, or, with digits, as it is."""
    return each.text(f"+.{digits}f" if digits else "+.0%").replace("%", "").replace("-", "−")


# The sixteen levels of NormalFloat4 (QLoRA, arXiv:2305.14314, appendix E).
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
       -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
       0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]

# %% [markdown]
# ## Who speaks?
#
# To the model a conversation is one row of tokens: the **chat template** has put marks between the turns. Below is a
# short one, and for each token its loss (negative log-likelihood, NLL) under a real chat model of 135 million
# parameters. Colors say who speaks.

# %% tags=["demo"]
model, tokenizer = smollm()
CHAT = [{"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Can I see Anna on Friday, 3 pm?"},
        {"role": "assistant", "content": "FRI 3pm Anna"}]
ids = torch.tensor([tokenizer(tokenizer.apply_chat_template(CHAT, tokenize=False)).input_ids])
with torch.no_grad():
    nll = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
HEADER = tokenizer("<|im_start|>assistant\n").input_ids  # opens the assistant's turn
END = tokenizer.convert_tokens_to_ids("<|im_end|>")  # closes every turn
row, size = ids[0].tolist(), len(HEADER)
answer_at = next(i + size for i in range(len(row)) if row[i : i + size] == HEADER)
speaks = ["assistant" if answer_at <= i < ids.shape[1] - 1 else "others" for i in range(1, ids.shape[1])]
tones = {"assistant": COLORS[1], "others": "#bbbbbb"}
fig, ax = figure(width=11, height=3.6)
ax.bar(range(len(nll)), nll, color=[tones[who] for who in speaks])
names = [tokenizer.decode([int(i)]).replace("\n", "⏎").replace(" ", "␣") for i in ids[0, 1:]]
ax.set_xticks(range(len(nll)), names, rotation=90, fontsize=8)
ax.set(ylabel="NLL, nats", xlim=(-0.7, len(nll) - 0.3))
ax.legend(handles=[ax.bar([0], [0], color=tone, label=who) for who, tone in tones.items()], loc="upper center")
of_answer = sum(float(x) for x, who in zip(nll, speaks, strict=True) if who == "assistant")
count = speaks.count("assistant")
show(fig, f"Bars of the NLL of {len(nll)} tokens; {count} of them, orange, are the assistant's and hold "
          f"{of_answer / float(nll.sum()):.0%} of the sum.",
     title=f"{count} of {len(nll)} tokens are the assistant's; they hold {of_answer / float(nll.sum()):.0%} of "
           "the loss")

# %% [markdown]
# Train on all of it, and part of the gradient teaches the model to write *questions*. So the usual choice: the loss
# counts on the assistant's tokens alone. In code that is a matter of **labels**: a copy of the ids, in which everything
# else is −100, the number that `cross_entropy` skips.
#
# Two places go wrong again and again. The **end mark** `<|im_end|>` of an answer belongs to it: else nothing in the
# training says when to stop. And the labels are *not* shifted: transformers moves them by one inside its loss.
#
# ### Exercise 1: labels

# %% exercise="build_labels"
def build_labels(ids, header, end, ignore_index=-100):
    """Labels for supervised fine-tuning: only what the assistant says is scored.

    ids:    int64 [rows, n]: conversations, padded on either side or cut off at the end. Not
            changed.
    header: tuple of ints, two or more: the ids that open a turn of the assistant. Its first id
            and `end` are marks: the first opens turns of others, too (followed by other ids),
            and neither stands within a content. Its other ids may stand anywhere.
    end:    the id that closes every turn, whoever speaks. Padding may have the same id.

    An answer is what stands behind a header, up to and with the next `end`, or up to the end of
    the row if none comes. A row may have many answers, or none; an answer may be empty.
    Returns a new int64 tensor [rows, n]: the id of its own place where an answer stands, and
    ignore_index elsewhere. Nothing is shifted: transformers does that inside its loss.
    """
    ### BEGIN SOLUTION
    labels = torch.full_like(ids, ignore_index)
    header = list(header)
    for row, own in zip(labels, ids.tolist(), strict=True):
        speaks = False
        for i, token in enumerate(own):
            if speaks:
                row[i] = token
                speaks = token != end
            if own[max(0, i + 1 - len(header)) : i + 1] == header:
                speaks = True
    return labels
    ### END SOLUTION


# %% check="build_labels"
check(build_labels)

# %% [markdown]
# What do the classic mistakes do to the loss? Yours on the conversation above, then shifted once too often, then with
# all tokens scored. None of them raises an error.

# %% tags=["payoff"]
labels = build_labels(ids, tuple(HEADER), END)
kinds = {"yours": labels, "shifted twice": F.pad(labels[:, 1:], (0, 1), value=-100), "all tokens": ids}
with torch.no_grad():
    losses = {name: float(model(ids, labels=each).loss) for name, each in kinds.items()}
fig, ax = figure(width=7, height=2.4)
ax.bar_label(ax.barh(list(losses), list(losses.values()), color=COLORS[:3]), fmt="%.2f", padding=3)
ax.invert_yaxis()
ax.set(xlabel="loss that transformers computes, nats a token", xlim=(0, 1.2 * max(losses.values())))
show(fig, "Bars of three losses: " + ", ".join(f"{name} {loss:.2f}" for name, loss in losses.items()) + ".",
     title=f"Scored with your labels {losses['yours']:.1f}, shifted twice {losses['shifted twice']:.1f} nats a token")

# %% [markdown]
# Labels that are shifted twice ask for the token after the next. A training loop takes them as they are: it can't know.
# **Decode your labels once before you train.** It is the cheapest test there is.
#
# ## Packing
#
# Conversations have different lengths. In a padded batch, what stands behind the shorter ones is computed and thrown
# away. **Packing** puts several into one row. Then three things have to be right:
#
# * **positions** begin at 0 again in each conversation;
# * **attention** stays within a conversation (a mask with blocks on the diagonal; FlashAttention is given the places
#   where conversations begin instead, `cu_seqlens`);
# * the **first label** of each is −100: after the shift inside the loss, it would be predicted from the last token of
#   somebody else's conversation.
#
# ### Exercise 2: packing

# %% exercise="pack_sequences"
def pack_sequences(sequences, length, pad=0):
    """Several conversations in one row, so that hardly any place is padding.

    sequences: list of (ids, labels), at least one; each an int64 tensor [n] with n >= 1, both
               of a pair equally long. Not changed.
    length:    an int >= 1, how long a row is. Of a longer sequence the first `length` tokens
               are kept.
    pad:       the id that stands where no sequence does.

    First fit: in the order of the list, each sequence goes into the first row that still has
    room for all of it, behind what stands there; if there is none, into a new row.
    Returns a tuple of four new int64 tensors [rows, length]:
      ids:       the tokens; `pad` at padding
      labels:    the labels, but -100 at the first token of each sequence, and at padding
      positions: 0, 1, 2 … within each sequence; 0 at padding
      owners:    the number of the sequence in the list, from 0; -1 at padding
    Source: transformers' DataCollatorWithFlattening does the same for one row.
    """
    ### BEGIN SOLUTION
    rows = []
    for number, (ids, labels) in enumerate(sequences):
        ids, labels = ids[:length], labels[:length].clone()
        labels[0] = -100
        parts = [ids, labels, torch.arange(len(ids)), torch.full_like(ids, number)]
        row = next((row for row in rows if len(row[0]) + len(ids) <= length), None)
        if row is None:
            rows.append(parts)
        else:
            row[:] = [torch.cat(both) for both in zip(row, parts, strict=True)]
    columns = zip(*rows, strict=True)
    return tuple(
        torch.stack([F.pad(x, (0, length - len(x)), value=fill) for x in column])
        for column, fill in zip(columns, (pad, -100, 0, -1), strict=True)
    )
    ### END SOLUTION


# %% check="pack_sequences"
check(pack_sequences)

# %% [markdown]
# Two tests. How many places are padding, for 64 conversations of drawn lengths? And does a packed conversation get the
# same loss as alone? With `owners` the mask is one line: `owners[:, :, None] == owners[:, None, :]`, and causal.

# %% tags=["payoff"]
dice = torch.Generator().manual_seed(0)
lengths = (20 + 236 * torch.rand(64, generator=dice) ** 2).long().tolist()
drawn = [(torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)) for n in lengths]
owners = pack_sequences(drawn, 256)[3]
wasted = {"padded": 1 - sum(lengths) / (64 * max(lengths)), "packed": float((owners < 0).float().mean())}

TALK = ["Can I see Anna on Friday, 3 pm?", "Put Leo into my calendar: Monday, 9 am.",
        "Paul is coming on Sunday at 1 pm."]
three = []
for text in TALK:
    row = tokenizer(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\nVery well.<|im_end|>\n").input_ids
    three.append((torch.tensor(row), build_labels(torch.tensor([row]), tuple(HEADER), END)[0]))


@torch.no_grad()
def packed_losses(separate):
    """The loss of each of the three in one packed row, with attention within its own or to all that is earlier."""
    row, goals, places, whose = pack_sequences(three, 96, tokenizer.pad_token_id)
    mask = torch.ones(1, 1, 96, 96, dtype=torch.bool).tril()
    if separate:
        mask &= (whose[:, :, None] == whose[:, None, :])[:, None]
    else:
        places = torch.arange(96)[None]
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    logits = model(row, attention_mask=bias, position_ids=places).logits
    each = F.cross_entropy(logits[0, :-1], goals[0, 1:], reduction="none", ignore_index=-100)
    return [float(each[whose[0, 1:] == i].sum() / (goals[0, 1:][whose[0, 1:] == i] >= 0).sum()) for i in range(3)]


with torch.no_grad():
    alone = [float(model(row[None], labels=goals[None]).loss) for row, goals in three]
within, across = packed_losses(True), packed_losses(False)
fig, (left, right) = figure(1, 2, width=10, height=3, width_ratios=[1, 1.6])
left.bar_label(left.bar(list(wasted), [100 * w for w in wasted.values()], color=COLORS[:2]), fmt="%.0f %%")
left.set(ylabel="places that are padding, %", ylim=(0, 115 * max(wasted.values())))
for name, values, color, mark in (("alone", alone, "#888888", "o"), ("packed, neither", across, COLORS[1], "s"),
                                  ("packed, mask and positions", within, COLORS[0], "x")):
    right.plot(range(3), values, mark, color=color, label=name, markersize=8)
right.set_xticks(range(3), ["first", "second", "third"])
right.set(ylabel="loss, nats a token", xlabel="conversation in the row", xlim=(-0.4, 2.4))
right.legend(fontsize=8)
gap, leak = (max(abs(a - b) for a, b in zip(alone, other, strict=True)) for other in (within, across))
show(fig, f"Left: padding takes {wasted['padded']:.0%} of a padded batch, {wasted['packed']:.0%} when packed. Right: "
          f"losses alone and packed differ by at most {gap:.0e} with mask and positions, by {leak:.2f} without.",
     title=f"Padding {wasted['padded']:.0%} → {wasted['packed']:.0%}; a packed loss is off by {gap:.0e}, without mask "
           f"and positions by {leak:.1f}")

# %% [markdown]
# Without the mask the second conversation reads the first. These three have the same answer: is a later one's loss
# *lower* in the right panel than alone? Then the answer was in sight. In use it won't be.
#
# ## LoRA: a narrow road beside the wide one
#
# Full fine-tuning trains every weight, and with AdamW a weight takes 16 bytes: itself, a gradient and two states, in
# float32. **LoRA** (Hu et al. 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685)) freezes $W$ and trains two
# thin matrices beside it, $A \in \mathbb{R}^{r \times n}$ and $B \in \mathbb{R}^{m \times r}$:
#
# $$y = W x + \frac{\alpha}{r}\, B A\, x .$$
#
# $B$ starts at zero, so the tuned model *is* the old one at the start. Not both: with $A = B = 0$ both gradients are
# zero for ever. And in the end $W + \frac{\alpha}{r} BA$ is an ordinary matrix: **merged**, the model is as fast as
# before.
#
# ### Exercise 3: a linear layer with LoRA

# %% exercise="LoRALinear"
class LoRALinear(nn.Module):
    """A frozen linear layer and beside it an update of low rank, which alone is trained.

    LoRALinear(linear, r, alpha): linear is an nn.Linear with or without bias, of float32,
    float64 or bfloat16; r an int >= 1, maybe above both its sizes; alpha a number > 0. The
    layer itself is kept and frozen: none of its parameters is trained, none of them changes.

    A: nn.Parameter [r, in_features], drawn evenly between -1/sqrt(in_features) and
       1/sqrt(in_features), anew for each layer. B: nn.Parameter [out_features, r], zeros.
       Both are float64 if linear is, else float32. Nothing else is trained.

    forward(x): x [..., in_features] of linear's dtype; gives linear(x) + alpha / r * x A^T B^T,
       the update reckoned in A's dtype, the result of x's dtype. Gradients flow to x, A and B.
    merged(): a new plain nn.Linear of linear's sizes and dtype, with weight W + alpha / r * B A
       (added in A's dtype, then rounded once) and a copy of the bias, if there is one. Nothing
       of self or linear is changed or shared.
    Source: Hu et al., "LoRA", 2021, arXiv:2106.09685, section 4.1; initialized as in peft.
    """

    def __init__(self, linear, r, alpha):
        super().__init__()
        ### BEGIN SOLUTION
        self.linear, self.scale = linear.requires_grad_(False), alpha / r
        dtype = torch.float64 if linear.weight.dtype == torch.float64 else torch.float32
        bound = linear.in_features**-0.5
        A = torch.empty(r, linear.in_features, dtype=dtype)
        self.A = nn.Parameter(A.uniform_(-bound, bound))
        self.B = nn.Parameter(torch.zeros(linear.out_features, r, dtype=dtype))
        ### END SOLUTION

    def forward(self, x):
        """linear(x) and the update: [..., out_features]."""
        ### BEGIN SOLUTION
        update = self.scale * (x.to(self.A.dtype) @ self.A.T) @ self.B.T
        return (self.linear(x) + update).to(x.dtype)
        ### END SOLUTION

    @torch.no_grad()
    def merged(self):
        """One plain linear layer that says the same."""
        ### BEGIN SOLUTION
        new = copy.deepcopy(self.linear)
        new.weight.copy_(self.linear.weight.to(self.A.dtype) + self.scale * self.B @ self.A)
        return new
        ### END SOLUTION


# %% check="LoRALinear"
check(LoRALinear)

# %% [markdown]
# Now tune the real model with it. The task: turn a request into one line, `FRI 3pm Anna`. We have 32 examples, and 24
# other requests to judge by. To be quick, only the last eight of thirty layers get adapters; what the layers below say
# is the same in every epoch and is computed once.

# %% tags=["demo"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
PEOPLE = ["Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Irene", "Jonas", "Karen", "Leo"]
REQUESTS = ["Please book {n} for {d} at {h} {m}.", "Can I see {n} on {d}, {h} {m}?", "{n} is coming on {d} at {h} {m}.",
            "On {d} at {h} {m} I meet {n}.", "Put {n} into my calendar: {d}, {h} {m}."]


def request(die):
    """A request and the line that is wanted."""
    d, n, h, m = die.choice(DAYS), die.choice(PEOPLE), die.randint(1, 12), die.choice(["am", "pm"])
    return die.choice(REQUESTS).format(n=n, d=d, h=h, m=m), f"{d[:3].upper()} {h}{m} {n}"


def rendered(question, answer=None):
    """A conversation as the model's template has it, its assistant's turn open if there is no answer."""
    chat = [*CHAT[:1], {"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return text if answer is None else f"{text}{answer}<|im_end|>\n"


@torch.inference_mode()
def replies(questions):
    """Greedy answers of at most eleven tokens."""
    chats, found = [rendered(q) for q in questions], [""] * len(questions)
    for places in batches([len(tokenizer(chat).input_ids) for chat in chats]):
        given = tokenizer([chats[i] for i in places], return_tensors="pt", padding=True, padding_side="left")
        said = model.generate(**given, max_new_tokens=11)[:, given.input_ids.shape[1] :]
        for i, text in zip(places, tokenizer.batch_decode(said, skip_special_tokens=True), strict=True):
            found[i] = text.strip()
    return found


die = random.Random(0)
examples, unseen = [request(die) for _ in range(32)], [request(die) for _ in range(24)]
ORDINARY = ["What is the capital of France?", "Who wrote Hamlet?", "What color is snow?", "Which animal barks?"]
before = replies([q for q, _ in unseen] + ORDINARY)
for (question, wanted), said in list(zip(unseen, before, strict=False))[:3]:
    print(f"{question:44} wanted: {wanted:14} said: {said}")

# %% tags=["payoff"]
FIRST_LAYER, LAYERS = 22, model.model.layers
model.requires_grad_(False)
torch.manual_seed(0)
adapters = []
for layer in LAYERS[FIRST_LAYER:]:
    for parent in (layer.self_attn, layer.mlp):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Linear):
                setattr(parent, name, LoRALinear(part, 8, 16))
                adapters.append((parent, name, part))
rows = [torch.tensor(tokenizer(rendered(*example)).input_ids) for example in examples]
goals = [build_labels(row[None], tuple(HEADER), END)[0] for row in rows]


def through(layers, x):
    """Hidden states [rows, n, width] through some layers; rows are padded on the right, where nobody looks."""
    places = torch.arange(x.shape[1])[None]
    turned = model.model.rotary_emb(x, places)
    for layer in layers:
        x = layer(x, attention_mask=None, position_ids=places, position_embeddings=turned)
    return x


with torch.no_grad():
    low = [through(LAYERS[:FIRST_LAYER], model.model.embed_tokens(row[None]))[0] for row in rows]
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
STEPS, curve = 16, []
order = torch.cat([torch.randperm(32) for _ in range(STEPS // 4)]).view(STEPS, 8)
for step, batch in enumerate(order):
    optimizer.zero_grad()
    answers, loss = sum(int((goals[i][1:] >= 0).sum()) for i in batch), 0.0
    for part in batch.split(2):  # in four parts: a quarter of the memory, the same gradient
        longest = max(len(rows[i]) for i in part)
        x = torch.stack([F.pad(low[i], (0, 0, 0, longest - len(low[i]))) for i in part])
        wanted = torch.stack([F.pad(goals[i], (0, longest - len(goals[i])), value=-100) for i in part])[:, 1:]
        states = model.model.norm(through(LAYERS[FIRST_LAYER:], x))[:, :-1]
        scores = model.lm_head(states[wanted >= 0])
        share = F.cross_entropy(scores, wanted[wanted >= 0], reduction="sum") / answers
        share.backward()
        loss += float(share.detach())
    optimizer.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 5) * (1 - step / STEPS)
    optimizer.step()
    curve.append(loss)
after = replies([q for q, _ in unseen] + ORDINARY)
for parent, name, part in adapters:
    setattr(parent, name, part)  # the model is its old self again
right_before, right_after = ([said == want for said, (_, want) in zip(told, unseen, strict=False)]
                             for told in (before, after))
gain = interval([float(b) - float(a) for a, b in zip(right_before, right_after, strict=True)])
fig, (left, right) = figure(1, 2, width=10, height=3)
left.plot(range(1, STEPS + 1), curve, color=COLORS[0], marker="o", markersize=4)
left.set(xlabel="step of eight examples", ylabel="loss on the answers, nats", yscale="log")
shares = [100 * sum(each) / len(each) for each in (right_before, right_after)]
right.bar_label(right.bar(["before", "after"], shares, color=COLORS[:2]), fmt="%.0f %%")
right.set(ylabel="unseen requests answered\nexactly as wanted, %", ylim=(0, 115))
show(fig, f"Left: the loss from {curve[0]:.2f} to {curve[-1]:.3f}. Right: {shares[0]:.0f} % of the unseen requests are "
          f"right before, {shares[1]:.0f} % after.",
     title=f"{STEPS} steps of your LoRA: from {shares[0]:.0f} % to {shares[1]:.0f} % of 24 unseen requests "
           f"(gain, 95 %: {100 * gain.low:.0f} to {100 * gain.high:.0f} points)")
for question, was, now in zip(ORDINARY, before[-4:], after[-4:], strict=True):
    print(f"{question:32} before: {was[:40]:42} after: {now}")
give_back()

# %% [markdown]
# Read the last lines: ordinary questions, of which no example said anything.
#
# ## Customized, and at what price?
#
# The same with controls and three seeds, each with its own examples, requests and adapters. The rivals: the same model
# **asked** in words for the line; **four examples in the prompt** (few-shot); and a control that must fail, tuned on
# the same examples with their answers shuffled.
#
# Two further tests: requests in **other wordings** than the examples', for the tuned model and for examples in the
# prompt; and **ordinary questions** ("Which animal barks?"), before and after.
#
# Right is the exact line and nothing else, though the words that ask for it don't spell out every blank. Answers end
# after eleven tokens. Both tunings have one learning rate (0.004) and four epochs, without a search: what a gentler one
# would learn, and what it would spare, isn't asked here.
#
# **Before the run:** "fine-tune to customize a model's abilities" is *correct* if tuning surely gains more than ten
# points over asking, *wrong* if surely less, else *unverifiable*. "Robustness is hard to control" is *correct* if the
# tuned model surely loses more than ten points on ordinary questions, *wrong* if surely fewer, else *unverifiable*.

# %% claim="A04.1"
custom = evidence("A04.1")
print(custom.again())
WAYS = ["asked", "examples", "tuned", "tuned on shuffled answers"]
fig, (left, right) = figure(1, 2, width=10.5, height=3.6, width_ratios=[1.3, 1])
for i, way in enumerate(WAYS):
    each = custom.interval(way, "right")
    left.barh(i, 100 * each.mean, color=COLORS[i], alpha=0.35)
    left.plot([100 * v for v in custom.each(way, "right")], [i] * 3, "o", color=COLORS[i])
left.set_yticks(range(4), ["asked in words", "four examples\nin the prompt", "tuned", "tuned on\nshuffled answers"])
left.set(xlabel="unseen requests right, %", xlim=(-2, 102), ylim=(3.6, -0.6))
PAIRS = [("other wordings:\nfour examples", "examples", "other_words", 1),
         ("other wordings:\ntuned", "tuned", "other_words", 2),
         ("ordinary questions:\nbefore", "asked", "ordinary", 0),
         ("ordinary questions:\ntuned", "tuned", "ordinary", 2)]
for i, (_, way, what, color) in enumerate(PAIRS):
    right.barh(i, 100 * custom.interval(way, what).mean, color=COLORS[color], alpha=0.35)
    right.plot([100 * v for v in custom.each(way, what)], [i] * 3, "o", color=COLORS[color])
right.set_yticks(range(4), [name for name, *_ in PAIRS])
right.set(xlabel="right, %", xlim=(-2, 102), ylim=(3.6, -0.6))
better = custom.interval("tuned", "right", minus="asked")
lost = custom.interval("asked", "ordinary", minus="tuned")
told = {way: f"{100 * custom.interval(way, 'right').mean:.0f} %" for way in WAYS}
show(fig, "Left: requests right, " + ", ".join(f"{way} {share}" for way, share in told.items()) + ". Right: "
     + ", ".join(f"{name} {100 * custom.interval(way, what).mean:.0f} %".replace("\n", " ")
                 for name, way, what, _ in PAIRS) + ".",
     title=f"Tuned {told['tuned']}, examples in the prompt {told['examples']}; ordinary questions "
           f"{100 * custom.interval('asked', 'ordinary').mean:.0f} % → "
           f"{100 * custom.interval('tuned', 'ordinary').mean:.0f} %")
verdict("A04.1", "correct" if better.above(0.1) else "wrong" if better.below(0.1) else "unverifiable",
        f"Right: {told['asked']} asked in words, {told['tuned']} tuned on 32 examples; gain {100 * better.low:.0f} to "
        f"{100 * better.high:.0f} points (95 %, three seeds). Shuffled answers: {told['tuned on shuffled answers']}.")

# %% claim="A04.5"
verdict("A04.5", "correct" if lost.above(0.1) else "wrong" if lost.below(0.1) else "unverifiable",
        f"Ordinary questions answered right: {100 * custom.interval('asked', 'ordinary').mean:.0f} % before and "
        f"{100 * custom.interval('tuned', 'ordinary').mean:.0f} % after tuning on nothing but appointments (loss "
        f"{100 * lost.low:.0f} to {100 * lost.high:.0f} points, 95 %).")

# %% [markdown]
# Nothing among the examples says that some messages are no appointments. So what would you mix in?
#
# ## How much of the model is that?
#
# ### Exercise 4: what is trained, and what it takes

# %% exercise="trainable_fraction"
def trainable_fraction(model):
    """How much of a model is trained, and what memory that takes.

    model: an nn.Module with modules inside modules; parameters of any dtype and shape, some of
           them frozen (requires_grad is False), some with more than one name (tied). It may
           have buffers, which aren't counted, and it may have no parameters. Not changed.

    Returns a dict with
      "trained":   how many numbers are trained, int. A tied parameter counts once.
      "all":       how many numbers the parameters hold, int
      "share":     trained / all, float; 0.0 for a model without parameters
      "weights":   bytes of all parameters, int
      "gradients": bytes of the gradients, int: as large as the parameter, of trained ones alone
      "states":    bytes of AdamW's two states, exp_avg and exp_avg_sq, int: each as large as
                   the parameter and of its dtype, of trained ones alone
    """
    ### BEGIN SOLUTION
    every = list(model.parameters())
    trained = [p for p in every if p.requires_grad]

    def size(parameters):
        return sum(p.numel() * p.element_size() for p in parameters)

    learned, count = sum(p.numel() for p in trained), sum(p.numel() for p in every)
    return {
        "trained": learned,
        "all": count,
        "share": learned / count if count else 0.0,
        "weights": size(every),
        "gradients": size(trained),
        "states": 2 * size(trained),
    }
    ### END SOLUTION


# %% check="trainable_fraction"
check(trainable_fraction)

# %% [markdown]
# Your function on a LLaMA with 7 billion weights, which takes no memory here: it is made on torch's `meta` device,
# where tensors have a shape and no numbers. Base in bfloat16, adapters in float32; "q and v" are the linear layers that
# make queries and values, which alone get adapters from `peft`, Hugging Face's LoRA library, unless you say otherwise.

# %% tags=["payoff"]
from transformers import LlamaConfig, LlamaForCausalLM

QV = ("q_proj", "v_proj")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def seven(r, names):
    """A 7B LLaMA on the meta device, with LoRA of rank r on the linear layers of these names; r = 0: all is trained."""
    with torch.device("meta"):
        big = LlamaForCausalLM(LlamaConfig(dtype=torch.bfloat16)).bfloat16()
        if r:
            big.requires_grad_(False)
            for name, part in list(big.named_modules()):
                if name.endswith(names) and isinstance(part, nn.Linear):
                    parent = big.get_submodule(name.rpartition(".")[0])
                    setattr(parent, name.rpartition(".")[2], LoRALinear(part, r, 16))
    return trainable_fraction(big)


SETUPS = {"full, bfloat16": (0, ()), "r = 64, all linear": (64, ALL_LINEAR), "r = 8, all linear": (8, ALL_LINEAR),
          "r = 8, q and v": (8, QV)}
counted = {name: seven(*setup) for name, setup in SETUPS.items()}
fig, (left, right) = figure(1, 2, width=10.5, height=3, sharey=True)
left.bar_label(left.barh(list(counted), [100 * c["share"] for c in counted.values()], color=COLORS[0]),
               [f"{100 * c['share']:.3g} %" for c in counted.values()], padding=3)
left.set(xscale="log", xlabel="numbers that are trained, %", xlim=(0.01, 1000))
start = torch.zeros(4)
for part, color in (("weights", "#bbbbbb"), ("gradients", COLORS[0]), ("states", COLORS[1])):
    sizes = torch.tensor([c[part] / 1e9 for c in counted.values()])
    right.barh(list(counted), sizes, left=start, color=color, label=part)
    start = start + sizes
left.invert_yaxis()
right.set(xlabel="GB, activations aside")
right.legend()
told = {name: f"{100 * c['share']:.3g} %" for name, c in counted.items()}
show(fig, "Left: shares trained: " + ", ".join(f"{name} {share}" for name, share in told.items()) + ". Right: GB: "
     + ", ".join(f"{name} {total:.0f}" for name, total in zip(counted, start.tolist(), strict=True)) + ".",
     title=f"7B: full training holds {start[0]:.0f} GB, LoRA with r = 8 on q and v {start[3]:.0f} GB, of which "
           f"{counted['r = 8, q and v']['weights'] / 1e9:.0f} GB are frozen weights")

# %% [markdown]
# (With weights in bfloat16 and float32 masters and states, as large models are trained, full fine-tuning takes 16 to
# 18 bytes a weight instead of the 8 in the figure.)
#
# ## One to five percent?
#
# "Fine-tuning affects only 1 to 5 % of the weights." Which fine-tuning? A small LLaMA of ours has read Shakespeare; now
# it learns to answer in dialogues of lower-case letters. Every weight is compared before and after.
#
# And is the narrow road as good? Each way is tried with four learning rates, three seeds, the same 24 steps; the
# rate is chosen on other examples than the ones that count. (Each run is judged half-way and at its end; the better
# counts.) The control can't learn: its rate is 0.
#
# **Before the run:** the sentence is *correct* if the share that full fine-tuning changes is surely between 1 and 5 %;
# *imprecise* if it isn't, but LoRA as peft sets it up (r = 8 on q and v of a 7B LLaMA) trains that share; else *wrong*.

# %% claim="A04.4"
from experiments.A04_4 import DEFAULTS, FULL_RATES, LORA_RATES, RANKS

narrow = evidence("A04.4")
print(narrow.again())
fig, ax = figure(width=9, height=3.8)
tried = [("full", FULL_RATES, COLORS[6], "o"), *((f"LoRA, r = {r}", LORA_RATES, COLORS[i], "s^"[i])
                                                  for i, r in enumerate(RANKS))]
for arm, rates, color, mark in tried:
    curves = narrow.each(arm, "curve")
    ax.plot(rates, [sum(points) / 3 for points in zip(*curves, strict=True)], color=color, marker=mark, label=arm)
    for points in curves:
        ax.plot(rates, points, mark, color=color, alpha=0.3, markersize=4)
ax.axhline(narrow.interval("LoRA, r = 16, frozen", "best").mean, color="#444444", linestyle=":", label="untrained")
ax.set(xscale="log", xlabel="learning rate", ylabel="loss on unseen dialogues,\nnats a letter")
ax.set_ylim(None, narrow.interval("LoRA, r = 16, frozen", "best").mean * 1.08)
ax.legend(fontsize=9)
changed = narrow.interval("full", "changed")
best = {arm: narrow.interval(arm, "best").mean for arm, *_ in tried}
rate = {arm: sorted(narrow.each(arm, "rate"))[1] for arm, *_ in tried}
wide = f"LoRA, r = {RANKS[-1]}"
show(fig, "Loss against learning rate for full fine-tuning and LoRA of two ranks. At its own best rate: "
     + ", ".join(f"{arm} {best[arm]:.2f} at {rate[arm]:g}" for arm in best) + ".",
     title=f"At its own best rate: full {best['full']:.2f} at {rate['full']:g}, {wide} {best[wide]:.2f} at "
           f"{rate[wide]:g}")
word = "correct" if changed.within(0.01, 0.05) else "imprecise" if 0.01 <= DEFAULTS <= 0.05 else "wrong"
verdict("A04.4", word, f"Full fine-tuning changed {100 * changed.mean:.0f} % of the weights, in float32 (the embedding "
        "of a letter that never comes has no gradient). LoRA changes none of them and trains a share that you choose: "
        f"{100 * DEFAULTS:.2f} % of a 7B model with peft's defaults. {wide} against full: "
        f"{signed(narrow.interval(wide, 'best', minus='full'), 2)} nats a letter, each at its best rate. "
        "Best rates, the middle one of three seeds: " + ", ".join(f"{arm} {r:g}" for arm, r in rate.items()) + ".")

# %% [markdown]
# So try each way over a range of rates, and look where its optimum lies. Who takes one rate for both compares rates.
# (And in bfloat16 a step can be too small to change a number at all: that is next.)
#
# ## Merged into bfloat16
#
# Adapters are trained in float32 and then added to weights with eight significant bits. The most careful way is to add
# in float32 and to round once, at the end. What is left, even so, of an update that is small compared with its weight?
# A matrix of the real model, an update of rank 8, and its size as the knob.

# %% tags=["demo"]
weight = model.model.layers[10].mlp.up_proj.weight.detach()
drawn = torch.Generator().manual_seed(0)
update = torch.randn(weight.shape[0], 8, generator=drawn) @ torch.randn(8, weight.shape[1], generator=drawn)
SIZES = [3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4]
unchanged, missing = [], []
for size in SIZES:
    small = update * size * weight.norm() / update.norm()
    old = weight.bfloat16()
    new = (old.float() + small).bfloat16()
    unchanged.append(float((new == old).float().mean()))
    missing.append(float((new.float() - old.float() - small).norm() / small.norm()))
fig, ax = figure(width=9, height=3)
ax.plot(SIZES, [100 * u for u in unchanged], color=COLORS[0], marker="o", label="weights that don't change at all, %")
ax.plot(SIZES, [100 * m for m in missing], color=COLORS[1], marker="s", label="error of the update, % of its size")
ax.set(xscale="log", yscale="log", xlabel="size of the update, times that of the weights", ylabel="%")
ax.invert_xaxis()
ax.legend()
show(fig, "Against the size of the update: weights unchanged "
     + ", ".join(f"{u:.0%} at {s:g}" for u, s in zip(unchanged, SIZES, strict=True)) + "; error of the update "
     + ", ".join(f"{e:.0%} at {s:g}" for e, s in zip(missing, SIZES, strict=True)) + ".",
     title=f"An update of {SIZES[3]:g} of the weights' size: {unchanged[3]:.0%} of them stay, "
           f"it is off by {missing[3]:.0%}")

# %% [markdown]
# So test the merged model, not the one with the adapter beside it. Where rounding costs too much, keep the adapter
# apart, or the merged weights in float32. And don't "unmerge" from a rounded matrix: the old one doesn't come back.
#
# ## Four bits below, sixteen beside
#
# The frozen weights take most of the memory. They are only read, so they may be narrow: **QLoRA** (Dettmers et al.
# 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314)) keeps them in four bits. Its **NF4** has sixteen levels,
# quantiles of the normal distribution, scaled to −1 … 1, among them an exact 0. Each block of 64 weights has a scale,
# the largest $|w|$ in it.
#
# ### Exercise 5: weights to four bits

# %% exercise="nf4_quantize"
def nf4_quantize(weight, block=64):
    """Four bits a weight: the nearest of sixteen levels, and a scale for each block.

    weight: float32 or float64, of any shape, also not contiguous; an even number of weights.
    block:  an even int >= 2. Blocks are `block` consecutive weights in row-major order, rows
            running into each other; the last block may be shorter.

    scale = the largest |w| of the block; the code of w is the place (0 to 15) in the list NF4
    of the level that is nearest to w / scale. No w lies half-way between two levels. A block of
    zeros has the scale 0 and the code 7 (the level 0) throughout.
    Returns a tuple (packed, scales) of new tensors: packed, uint8 [numel // 2], holds two codes
    a byte, first * 16 + second, as bitsandbytes does; scales is float32 [number of blocks].
    Source: Dettmers et al., "QLoRA", 2023, arXiv:2305.14314, section 3 and appendix E.
    """
    ### BEGIN SOLUTION
    flat = weight.detach().double().flatten()
    n = len(flat)
    blocks = F.pad(flat, (0, -n % block)).view(-1, block)
    scales = blocks.abs().amax(1)
    normed = blocks / torch.where(scales > 0, scales, 1.0)[:, None]
    levels = torch.tensor(NF4, dtype=torch.float64)
    codes = torch.bucketize(normed.flatten()[:n], (levels[1:] + levels[:-1]) / 2)
    packed = codes[::2] * 16 + codes[1::2]
    return packed.to(torch.uint8), scales.float()
    ### END SOLUTION


# %% check="nf4_quantize"
check(nf4_quantize)

# %% [markdown]
# In use, each forward pass gives the weights back, block by block, and throws them away again. Beside it runs LoRA:
#
# $$y = x\, \hat W^\top + \frac{\alpha}{r}\, x A^\top B^\top, \qquad \hat W = \text{level} \times \text{scale}.$$
#
# Gradients pass *through* $\hat W$ to the layers below, but not to it.
#
# ### Exercise 6: QLoRA's forward pass

# %% exercise="qlora_forward"
def qlora_forward(x, packed, scales, A, B, alpha):
    """A linear layer whose weights are four bits wide, and a LoRA update beside it.

    x:      [..., n], floating-point; scales, A and B have its dtype
    packed: uint8 [m * n // 2]: two codes a byte, the first weight in the high half. A code is a
            place in the list NF4; the weights are those of a row-major matrix [m, n].
    scales: [blocks]: m * n / blocks consecutive weights share one (a whole number; rows run
            into each other). A weight is NF4[code] * scale.
    A:      [r, n]. B: [m, r]. alpha: a number > 0.

    Returns x W^T + alpha / r * x A^T B^T, [..., m], of x's dtype. Gradients flow to x (by both
    roads), A and B; none flows to scales.
    Source: Dettmers et al., "QLoRA", 2023, arXiv:2305.14314, section 3, equation 5.
    """
    ### BEGIN SOLUTION
    codes = torch.stack([packed >> 4, packed & 15], -1).flatten().long()
    levels = torch.tensor(NF4, dtype=x.dtype)[codes].view(len(scales), -1)
    weight = (levels * scales.detach()[:, None]).view(B.shape[0], A.shape[1])
    return x @ weight.T + alpha / A.shape[0] * (x @ A.T) @ B.T
    ### END SOLUTION


# %% check="qlora_forward"
check(qlora_forward)

# %% [markdown]
# On a real matrix: how far is it off in NF4, and in sixteen evenly spaced levels with the same scales? And can an
# adapter, trained *through* the four-bit layer, make good what rounding has cost?

# %% tags=["payoff"]
m, n = weight.shape
packed, scales = nf4_quantize(weight)
even = (weight.view(-1, 64) / scales[:, None] * 7.5 + 7.5).round().clamp(0, 15).sub(7.5).div(7.5) * scales[:, None]
text = tokenizer("The quick brown fox jumps over the lazy dog, and nobody knows why it does so every day. " * 6,
                 return_tensors="pt").input_ids
heard = []
ear = model.model.layers[10].mlp.up_proj.register_forward_pre_hook(lambda _, given: heard.append(given[0][0, 1:]))
with torch.no_grad():
    model.model(text)
ear.remove()
x = heard[0]
target = x @ weight.T
A = (torch.randn(8, n, generator=drawn) * n**-0.5).requires_grad_()
B = torch.zeros(m, 8, requires_grad=True)
fixing, off = torch.optim.Adam([A, B], 3e-3), []
for _ in range(60):
    error = (qlora_forward(x, packed, scales, A, B, 16) - target).norm() / target.norm()
    fixing.zero_grad()
    error.backward()
    fixing.step()
    off.append(float(error.detach()))
evenly = float((x @ even.view(m, n).T - target).norm() / target.norm())
fig, ax = figure(width=8, height=3)
ax.plot(range(60), [100 * e for e in off], color=COLORS[0], label="NF4 and an adapter in training")
ax.axhline(100 * evenly, color=COLORS[1], linestyle="--", label="evenly spaced levels")
ax.axhline(100 * off[0], color=COLORS[0], linestyle=":", label="NF4 alone")
ax.set(xlabel="step", ylabel="error of the layer's output, %", ylim=(0, None))
ax.legend(fontsize=9)
bits = (packed.numel() * 8 + scales.numel() * 32) / weight.numel()
show(fig, f"The output's error: evenly spaced {evenly:.1%}, NF4 {off[0]:.1%}, and {off[-1]:.1%} after 60 steps of the "
          "adapter.",
     title=f"{bits:.1f} bits: NF4 is off by {off[0]:.1%}, evenly spaced by {evenly:.1%}, with an adapter {off[-1]:.1%}")

# %% [markdown]
# (On the very text it was trained on: it shows that gradients arrive, not that it generalizes.) QLoRA quantizes the
# scales once more, which brings 4.5 bits a weight down to 4.13, and computes in bfloat16. On a GPU `bitsandbytes` does
# all that; ask it for `quant_type="nf4"`, since its plain `Linear4bit` is FP4.
#
# ## Can you teach it facts?
#
# "RAG is an open-book exam; fine-tuning is the scholar who has learned the whole book." Eight towns that don't exist
# get a mayor. One model is tuned on them, each asked for in four wordings, in 28 steps of eight questions. Others read
# the fact in their prompt, found among the eight by MiniLM, a small sentence encoder (**retrieval**), or, as a control,
# a *wrong* passage. The old model, with nothing, is the other control. (One learning rate, 0.004, without a search.)
#
# Then they are asked: as taught; in other words ("I am going to Velmora. Who runs the town hall there?"); and turned
# round ("Of which town is … the mayor?").
#
# **Before the run:** tuning against retrieval, asked in other words and turned round: the sentence is
# *wrong* if in one of the two tuning is surely more than ten points behind; *correct* if in both it surely isn't; else
# *unverifiable*.

# %% claim="A01.6"
book = evidence("A01.6")
print(book.again())
ARMS = ["retrieval", "tuned", "a wrong passage", "nothing"]
ASKED = {"taught": "as taught", "other": "in other words", "back": "turned round"}
fig, axes = figure(1, 3, width=10.5, height=3.3, sharey=True)
for ax, (what, name) in zip(axes, ASKED.items(), strict=True):
    for i, arm in enumerate(ARMS if what == "taught" else ARMS[:2]):
        ax.barh(i, 100 * book.interval(arm, what).mean, color=COLORS[i], alpha=0.35)
        ax.plot([100 * v for v in book.each(arm, what)], [i] * 3, "o", color=COLORS[i], markersize=5)
    if what != "taught":
        ax.text(50, 2.5, "not asked", ha="center", va="center", color="#888888")
    ax.set(xlabel="answers that name it, %", xlim=(-3, 103), ylim=(3.6, -0.6), title=name)
axes[0].set_yticks(range(4), ARMS)
gaps = [book.interval("retrieval", what, minus="tuned") for what in ("other", "back")]
word = ("wrong" if any(gap.above(0.1) for gap in gaps) else
        "correct" if all(gap.below(0.1) for gap in gaps) else "unverifiable")
means = {arm: [f"{100 * book.interval(arm, what).mean:.0f}" for what in ASKED] for arm in ARMS[:2]}
alone = {arm: f"{100 * book.interval(arm, 'taught').mean:.0f}" for arm in ARMS[2:]}
show(fig, "Answers right in %, asked as taught, in other words, turned round: "
     + "; ".join(f"{arm} {', '.join(three)}" for arm, three in means.items()) + ". As taught only: "
     + ", ".join(f"{arm} {share}" for arm, share in alone.items()) + ".",
     title=f"As taught, in other words, turned round: retrieval {' / '.join(means['retrieval'])} %, "
           f"tuned {' / '.join(means['tuned'])} %")
verdict("A01.6", word, f"Retrieval's lead over tuning: {signed(gaps[0])} points in other words, {signed(gaps[1])} "
        f"turned round (95 %, three seeds). As taught: {means['tuned'][0]} % tuned, "
        f"{means['retrieval'][0]} % retrieved.")

# %% [markdown]
# (A t interval of three seeds doesn't know that a lead ends at a hundred points.)
#
# Knowing "A is B" without "B is A" has a name: the **reversal curse** (Berglund et al. 2023,
# [arXiv:2309.12288](https://arxiv.org/abs/2309.12288)).
#
# ### What a large model makes of it
#
# Berglund et al. met the curse in GPT-3 and Llama as well. And on models of 7 billion weights, trained on plain texts,
# retrieval was ahead on old and on new facts, and many paraphrases of a fact helped tuning (Ovadia et al. 2023,
# [arXiv:2312.05934](https://arxiv.org/abs/2312.05934)).
#
# ## So, avoid it?
#
# "Where you can do without fine-tuning, do without." Now there are two tasks on which both ways were tried: a format
# (appointments) and facts (mayors, in other words).
#
# **Before the run:** the sentence is *correct* if on neither task tuning is surely more than ten points ahead of the
# prompt (four examples; a retrieved passage); *wrong* if on both it is; *imprecise* if on one it is and on the other it
# surely isn't; else *unverifiable*.

# %% claim="A04.6"
leads = {"format": custom.interval("tuned", "right", minus="examples"),
         "facts": book.interval("tuned", "other", minus="retrieval")}
ahead, not_ahead = [e.above(0.1) for e in leads.values()], [e.below(0.1) for e in leads.values()]
word = ("wrong" if all(ahead) else "correct" if all(not_ahead) else
        "imprecise" if any(ahead) and any(not_ahead) else "unverifiable")
fig, ax = figure(width=8, height=2.2)
for i, each in enumerate(leads.values()):
    ax.plot([100 * each.low, 100 * each.high], [i, i], color=COLORS[i], linewidth=7, alpha=0.35)
    ax.plot(100 * each.mean, i, "o", color=COLORS[i])
ax.axvline(0, color="#444444", linewidth=1)
ax.axvline(10, color="#444444", linestyle=":")
ax.set_yticks(range(2), list(leads))
ax.set(xlabel="tuning ahead of the prompt, points (95 %; dotted: the rule's ten)", ylim=(1.6, -0.6))
show(fig, "Intervals of tuning's lead over the prompt: " + ", ".join(
    f"{name} {signed(e)} points" for name, e in leads.items()) + ".",
     title="Tuning's lead over the prompt: " + ", ".join(f"{name} {100 * e.mean:+.0f}" for name, e in leads.items()))
verdict("A04.6", word, "Tuning's lead over a prompt, in points (95 %): " + "; ".join(
    f"{name} {signed(e)}" for name, e in leads.items()) + ".")

# %% [markdown]
# ## Base or chat?
#
# No base model is shipped with the course. What stands in for one: a LLaMA of our own (two layers, 64 wide) that has
# **read** Shakespeare's plays, our *base*; and the same one after it has **conversed**, 120 steps on exchanges of the
# plays in a template with marks for user, assistant and end, our *chat*.
#
# Both are tuned on lower-case text without punctuation, as people type: **dialogues** in that template, and the
# **sonnets** as plain text, no dialogue at all. Little data (16 examples) and much (512); each start at its own best of
# two learning rates, chosen with another seed. Controls: a fresh model must do worse; the base model once more, with
# its examples in another order, must do the same.
#
# And the classic trap: the chat model tuned in a **strange template**, with marks it has never met.
#
# **Before the run:** a lead is sure if its interval is beyond 0.01 nats a letter. "Chat for dialogue" is *correct* if
# chat is surely ahead with little data and with much, *imprecise* if with one of them, *wrong* if surely not ahead by
# that in both, else *unverifiable*. "Base for what is no dialogue" is *correct* if base is surely ahead on the sonnets
# with both, *imprecise* if with one, *wrong* if chat is surely ahead with both, else *unverifiable*. "It depends on the
# task" is *correct* if somewhere chat is surely ahead and somewhere surely isn't, *wrong* if one start is surely ahead
# everywhere, else *unverifiable*.

# %% claim="A13.3"
starts = evidence("A13.3")
print(starts.again())
CELLS = [("dialogue", 16), ("dialogue", 512), ("text", 16), ("text", 512)]
lead = {(what, size): starts.interval(f"base, {what}, {size}", "loss", minus=f"chat, {what}, {size}")
        for what, size in CELLS}
strange = starts.interval("base, dialogue, 16", "loss", minus="chat, dialogue in a strange template, 16")
price = starts.interval("chat, dialogue in a strange template, 16", "loss", minus="chat, dialogue, 16")
rows = [*((f"{what}, {size} examples", lead[what, size]) for what, size in CELLS),
        ("dialogue, 16 examples,\nstrange template", strange)]
fig, ax = figure(width=9, height=3.4)
for i, (_, each) in enumerate(rows):
    color = COLORS[2] if i == 4 else COLORS[0 if i < 2 else 1]
    ax.plot([each.low, each.high], [i, i], color=color, linewidth=7, alpha=0.35)
    ax.plot(each.mean, i, "o", color=color)
ax.axvline(0, color="#444444", linewidth=1)
ax.axvline(0.01, color="#444444", linestyle=":")
ax.set_yticks(range(5), [name for name, _ in rows])
ax.set(xlabel="chat start ahead of base start, nats a letter (95 %; dotted: the rule's 0.01)", ylim=(4.6, -0.6))
said = ", ".join(f"{name} {each.mean:+.2f}".replace("\n", " ") for name, each in rows)
show(fig, f"Intervals of the chat start's lead: {said}.",
     title=f"Chat's lead on dialogue {lead['dialogue', 16].mean:+.2f} with 16 examples, "
           f"{lead['dialogue', 512].mean:+.2f} with 512; on plain text {lead['text', 16].mean:+.2f} and "
           f"{lead['text', 512].mean:+.2f}")
smaller = [arm for arm in starts.arms if 0.003 in starts.each(arm, "rate")]
print(f"The smaller of the two rates, 0.003, was the best for: {'; '.join(smaller) or 'none'}. A still smaller one "
      "wasn't tried.")
SURE = 0.01
chat_ahead = [lead["dialogue", size].above(SURE) for size in (16, 512)]
chat_not = [lead["dialogue", size].below(SURE) for size in (16, 512)]
verdict("A13.3", "correct" if all(chat_ahead) else "imprecise" if any(chat_ahead) else
        "wrong" if all(chat_not) else "unverifiable",
        "Chat's lead on dialogue, nats a letter (95 %): " + ", ".join(
            f"{signed(lead['dialogue', size], 2)} with {size} examples" for size in (16, 512))
        + f"; in a strange template, 16 examples, {signed(strange, 2)}: the template costs chat {signed(price, 2)}. "
        "Untuned, chat has "
        f"{starts.interval('untuned chat, dialogue, 512', 'loss').mean:.2f} nats a letter, tuned on 16 examples "
        f"{starts.interval('chat, dialogue, 16', 'loss').mean:.2f}, on 512 "
        f"{starts.interval('chat, dialogue, 512', 'loss').mean:.2f}.")

# %% claim="A13.2"
base_ahead = [lead["text", size].below(-SURE) for size in (16, 512)]
verdict("A13.2", "correct" if all(base_ahead) else "imprecise" if any(base_ahead) else
        "wrong" if all(lead["text", size].above(SURE) for size in (16, 512)) else "unverifiable",
        "Chat's lead on plain text, nats a letter (95 %), negative where base is ahead: " + ", ".join(
            f"{signed(lead['text', size], 2)} with {size} examples" for size in (16, 512)) + ".")

# %% claim="A13.1"
somewhere, elsewhere = any(e.above(SURE) for e in lead.values()), any(e.below(SURE) for e in lead.values())
everywhere = all(e.above(SURE) for e in lead.values()) or all(e.below(-SURE) for e in lead.values())
verdict("A13.1", "correct" if somewhere and elsewhere else "wrong" if everywhere else "unverifiable",
        f"Of four settings, chat is surely ahead in {sum(e.above(SURE) for e in lead.values())} and base in "
        f"{sum(e.below(-SURE) for e in lead.values())}; chat's lead goes from "
        f"{min(e.mean for e in lead.values()):+.2f} to {max(e.mean for e in lead.values()):+.2f} nats a letter.")

# %% [markdown]
# One reading and one training to converse stand behind all seeds: the intervals know what other examples would do, and
# nothing of what another pair of models would. Chat has 120 steps of training more behind it, on exchanges of the same
# plays: how much of a lead is that, no arm says. And with two rates an optimum may lie beyond them: what looks like
# harm by tuning may be the rate's.
#
# ### What this can't show
#
# Reasoning, tool calls and refusals: real chat models are trained for them after pretraining, and tuning can undo it. A
# few examples, even harmless ones, weakened refusals (Qi et al. 2023,
# [arXiv:2310.03693](https://arxiv.org/abs/2310.03693)). And in practice there is a third start: a base model to which
# the difference is added that chat training has made.
#
# ## The same in LLaMA-Factory's words
#
# LLaMA-Factory (Zheng et al. 2024, [arXiv:2403.13372](https://arxiv.org/abs/2403.13372)) is a command, a web page and a
# YAML file around all this. You have built what its lines say:

# %% tags=["demo"]
import yaml

RECIPE = """
model_name_or_path: HuggingFaceTB/SmolLM2-135M-Instruct
stage: sft                    # supervised fine-tuning; others: pt, rm, ppo, dpo, kto
finetuning_type: lora         # or full, freeze
lora_rank: 8
lora_alpha: 16
lora_target: all              # every linear layer of the blocks, not lm_head
template: chatml              # must be the one that the chat model was trained with
cutoff_len: 1024              # of a longer turn, question and answer lose their ends
packing: true
neat_packing: true            # attention stays within a conversation
train_on_prompt: false        # labels of the question are -100
learning_rate: 4.0e-3
quantization_bit: 4           # QLoRA
"""
recipe, (chat_model, _) = yaml.safe_load(RECIPE), smollm()
linear = [part for layer in chat_model.model.layers for part in layer.modules() if isinstance(part, nn.Linear)]
new = sum(recipe["lora_rank"] * (part.in_features + part.out_features) for part in linear)
total = sum(p.numel() for p in chat_model.parameters())
print(f"lora_target: all is {len(linear)} layers; rank {recipe['lora_rank']} makes {new:,} new numbers, "
      f"{new / total:.2%} beside {total:,}.")
print(f"The update is multiplied by alpha / r = {recipe['lora_alpha'] / recipe['lora_rank']:g}; the adapter's file has "
      f"{4 * new / 1e6:.1f} MB in float32.")

# %% [markdown]
# Its traps are those of this page. `template`: a name that doesn't fit the chat model trains without an error.
# `packing` without `neat_packing` lets conversations read each other. `cutoff_len` shortens question and answer, each
# at its end: a long answer loses its end mark, a long question the header behind it, and later turns fall away.
# (A trainer that cuts the whole row may cut away *every* label of an example: its mean loss is 0/0, NaN.)
#
# ## In 2026
#
# **LoRA is the usual way, and its numbers are better known.** All linear layers, the MLP's above all, not q and v
# alone; a learning rate about ten times that of full fine-tuning; equal to it as long as the data fits into the adapter
# (Schulman et al. 2025). DoRA, rsLoRA and PiSSA are options of peft's `LoraConfig`, LoRA+ an optimizer; compare them at
# their own best rates.
#
# **Serving many adapters** on one base (multi-LoRA in vLLM, S-LoRA) is a reason not to merge. To *add* adapters add the
# products $BA$: peft 0.21.2's `combination_type="linear"` adds the $A$s and the $B$s, each for itself, so that the mean
# of an adapter with itself is twice the adapter; `"cat"` is right (a script in `findings/`).
#
# **RL with verifiable rewards** has taken over where answers can be checked; SFT on traces of a larger model remains
# the first stage, and, for small models, often the only one.
#
# **Context got cheap.** Prefix caching makes a long, fixed prompt nearly free from the second request on, which moved
# the border towards prompting.
#
# ## What libraries do that you would not guess
#
# None of these is an error when it happens.
#
# * **loralib 0.1.2**: `eval()` adds the update to the weight, so a `state_dict()` taken then holds the sum and the
#   update beside it, and a new model has the update twice. Save in training mode, or its `lora_state_dict()`.
#   `findings/loralib_adds_the_update_twice.sh` runs it.
# * **peft 0.21.2**: a fresh DoRA adapter on a matrix with a row of zeros (pruned, or added to the vocabulary) gives
#   NaN, since it divides by the row's norm. Plain LoRA doesn't. `findings/peft_dora_of_a_row_of_zeros_is_nan.sh` runs
#   it.
# * **transformers 5.23.0**: `HfArgumentParser` reads `lr: 1e-4` from a YAML file as a *text*. Write 1.0e-4.
#   `findings/transformers_reads_a_rate_from_yaml_as_text.sh` runs it.
# * **math-verify 0.9.0**, a verifier for rewards: without dollar signs it takes the first number that it can read for
#   the answer, so that 12:30 equals 12:45, and 1e3 isn't 1000. Print what it reads in your gold answers.
#   `findings/math_verify_reads_a_time_as_its_hour.sh` runs it.
#
# ## What to remember
#
# * Labels: the assistant's tokens and the end mark, nothing shifted. Decode them once.
# * Packing: positions, block mask, first label −100.
# * LoRA: $B = 0$, $\alpha / r$, its own learning rate; test what you merged.
# * QLoRA: NF4 below, adapters beside; gradients pass through, not into.
# * Behavior and format: examples in the prompt first, then tune. Facts: against retrieval, and asked in other words
#   and turned round. And test what you did *not* train.
# * Base or chat: ask how much data you have, whose template it is in, and try both.
#
# **Sources.** Hu et al. 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685); Dettmers et al. 2023,
# [arXiv:2305.14314](https://arxiv.org/abs/2305.14314); Ovadia et al. 2023,
# [arXiv:2312.05934](https://arxiv.org/abs/2312.05934); Berglund et al. 2023,
# [arXiv:2309.12288](https://arxiv.org/abs/2309.12288); Gekhman et al. 2024,
# [arXiv:2405.05904](https://arxiv.org/abs/2405.05904); Qi et al. 2023,
# [arXiv:2310.03693](https://arxiv.org/abs/2310.03693); Biderman et al. 2024, "LoRA Learns Less and Forgets Less",
# [arXiv:2405.09673](https://arxiv.org/abs/2405.09673); Zheng et al. 2024,
# [arXiv:2403.13372](https://arxiv.org/abs/2403.13372); Schulman et al. 2025, "LoRA Without Regret", Thinking Machines
# Lab; transformers, `DataCollatorWithFlattening`; peft 0.21.2; bitsandbytes 0.50.2.
