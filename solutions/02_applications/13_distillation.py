# ---
# jupyter:
#   course:
#     title: "Distillation: a small model learns from a large one"
#     exercises: applications.distillation
#     questions: [A05]
#     needs: [02_applications/02_sampling]
# ---

# %% [markdown]
# # Distillation: a small model learns from a large one
#
# A book tells a pupil what comes next. A teacher can also tell what *might* have come next, and how likely it was. That
# is the whole idea of **knowledge distillation** (知识蒸馏), and it is how many small models of today were made.
#
# The interview question behind this notebook: **what is distillation, and what does it buy?** The usual notes say:
# collect questions, let the large model answer, train the small one on the answers with a hard and a soft loss; it
# becomes faster, smaller and nearly as good. Here you build each of these pieces, and put the promise to a test that
# notes leave out: the same small model *without* a teacher, on the same text, and for the same work.

# %% tags=["setup"]
import math
import time

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, SEQUENTIAL, evidence, figure, give_back, interval, knobs, shakespeare, show, smollm, verdict

# %% [markdown]
# ## What a teacher knows
#
# Three beginnings of a sentence, each with the word that stood next in some text. A label is that one word. A teacher,
# here a real model of 135 million parameters, gives a probability to each of its 49,152 tokens. The likeliest:

# %% tags=["demo"]
model, tokenizer = smollm()
torch.set_num_threads(1)  # the students below are small: a second thread would wait more than it works
TEXTS = [("The farmer keeps cows, pigs and", " sheep"), ("He went to the bakery to buy some", " bread"),
         ("She cut the bread with a", " knife")]


@torch.no_grad()
def next_logits(text):
    """The teacher's logits for the token after a text: [vocabulary]."""
    return model(tokenizer(text, return_tensors="pt").input_ids).logits[0, -1]


teachers = torch.stack([next_logits(text) for text, _ in TEXTS])
labels = [tokenizer(word).input_ids[0] for _, word in TEXTS]
fig, axes = figure(1, 3, width=10.5, height=3.5)
for ax, logits, label, (text, _) in zip(axes, teachers, labels, TEXTS, strict=True):
    best = logits.softmax(-1).topk(8)
    names = [tokenizer.decode([int(i)]).replace(" ", "␣") for i in best.indices]
    colors = [COLORS[1] if int(i) == label else COLORS[0] for i in best.indices]
    ax.barh(names, best.values * 100, color=colors)
    ax.invert_yaxis()
    ax.set(xlabel="teacher's probability, %", title=f"“… {' '.join(text.split()[-4:])}”")
chances = [float(logits.softmax(-1)[label]) for logits, label in zip(teachers, labels, strict=True)]
show(fig, "Bars of the eight likeliest next tokens of three sentences. The word of the text (orange) has "
          + ", ".join(f"{p:.0%}" for p in chances) + ".",
     title=f"The word of the text gets {min(chances):.0%} to {max(chances):.0%} from the teacher; others share "
           "the rest")

# %% [markdown]
# The ranks and ratios of the *other* answers tell which things are alike: that is the lesson of Hinton, Vinyals and
# Dean (2015, [arXiv:1503.02531](https://arxiv.org/abs/1503.02531)). To make the small probabilities heard, they divide
# the logits $z_i$ by a **temperature** $T > 1$, and call the result **soft targets**:
#
# $$p_i = \frac{\exp(z_i / T)}{\sum_j \exp(z_j / T)}$$
#
# A whole distribution for each token is also much to store: 49,152 numbers. So whoever writes a teacher's opinion to
# disk keeps its $k$ likeliest tokens and lets these share the 1.
#
# ### Exercise 1: soft targets

# %% exercise="soft_targets"
def soft_targets(logits, temperature=1.0, k=None):
    """The teacher's probabilities at a temperature, for a student to learn from.

    logits:      float32 or float64 [..., classes]: the teacher's, finite, and maybe large; any
                 number of leading dimensions, also none. No two of a row are equal. Not changed.
    temperature: a number > 0. The logits are divided by it before the softmax.
    k:           None, or an int from 1 to classes: then only the k likeliest classes of each
                 row have a probability, all others get 0, and the k add up to 1.

    Returns a new tensor of the shape and dtype of logits: softmax(logits / temperature) over
    the classes. The teacher is not trained: the result is cut off from the graph, no gradient
    flows to logits.
    Source: Hinton, Vinyals and Dean, 2015, arXiv:1503.02531, section 2.
    """
    ### BEGIN SOLUTION
    z = logits.detach() / temperature
    if k is not None:
        top = z.topk(k, dim=-1)
        z = torch.full_like(z, -torch.inf).scatter(-1, top.indices, top.values)
    return z.softmax(-1)
    ### END SOLUTION


# %% check="soft_targets"
check(soft_targets)

# %% [markdown]
# What does the temperature do, and what is lost with $k$? Your function on the first sentence. (In a live notebook
# there are sliders below the figure.)

# %% tags=["payoff"]
fig, (left, right) = figure(1, 2, width=10.5, height=3.4)
for T, color in zip((1, 2, 4), COLORS, strict=False):
    p = soft_targets(teachers[0], T).sort(descending=True).values
    left.plot(range(1, len(p) + 1), p * 100, color=color, label=f"T = {T}")
    right.plot(range(1, len(p) + 1), p.cumsum(-1) * 100, color=color, label=f"T = {T}")
left.set(xscale="log", yscale="log", xlabel="token, by rank", ylabel="probability, %", ylim=(1e-7, 100))
right.set(xscale="log", xlabel="k", ylabel="probability that the\nk likeliest hold, %", ylim=(0, 102))
right.axvline(64, color="black", linestyle=":", linewidth=1)
left.legend()
held = {T: float(soft_targets(teachers[0], T).topk(64).values.sum()) for T in (1, 2)}
show(fig, "Left: probability against rank for three temperatures. Right: what the k likeliest hold; 64 tokens hold "
          f"{held[1]:.0%} at T = 1 and {held[2]:.0%} at T = 2.",
     title=f"64 tokens of {teachers.shape[1]:,} hold {held[1]:.0%} of the probability at T = 1, {held[2]:.0%} at T = 2")


def softened(sentence, T, k):
    """The ten likeliest tokens of a sentence at temperature T, when k share the probability."""
    at = [text for text, _ in TEXTS].index(sentence)
    best = soft_targets(teachers[at], T, k).topk(min(k, 10))
    fig, ax = figure(width=7, height=3.2)
    ax.barh([tokenizer.decode([int(i)]).replace(" ", "␣") for i in best.indices], best.values * 100, color=COLORS[0])
    ax.invert_yaxis()
    ax.set(xlabel="probability, %", title=f"“{sentence} …” at T = {T:g}, k = {k}")
    show(fig, f"The likeliest tokens at T = {T:g} when {k} share the probability: the first has {best.values[0]:.0%}.")


knobs(softened, sentence=[text for text, _ in TEXTS], T=(0.5, 5.0, 0.25), k=(1, 256))

# %% [markdown]
# ## The example of the notes, worked out
#
# "The teacher says [0.7, 0.2, 0.1]; a hard target would pick A. The student says [0.6, 0.3, 0.1], and the KL divergence
# measures the difference." The divergence from teacher $p$ to student $q$ is
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i \log \frac{p_i}{q_i} .$$
#
# Let a second student say [0.6, 0.1, 0.3]: it has B and C the wrong way round. Can the two losses tell them apart?
# (This is arithmetic: both say 0.6 for A.)
#
# Fixed before the run: the sentence is *correct* if the hard loss is the same for both students while KL ranks the
# first one nearer to its teacher; else *wrong*.

# %% claim="A05.19"
p, near, swapped = torch.tensor([[[0.7, 0.2, 0.1]], [[0.6, 0.3, 0.1]], [[0.6, 0.1, 0.3]]])
hard = [float(-q[0, 0].log()) for q in (near, swapped)]
soft = [float(F.kl_div(q.log(), p, reduction="batchmean")) for q in (near, swapped)]
word = "correct" if abs(hard[0] - hard[1]) < 1e-6 and soft[0] < soft[1] else "wrong"
fig, (left, middle, right) = figure(1, 3, width=10.5, height=3.2, width_ratios=[1.5, 1, 1])
for at, (name, q) in enumerate((("teacher", p), ("student 1", near), ("student 2", swapped))):
    left.bar([i + 0.27 * (at - 1) for i in range(3)], q[0], 0.25, color=COLORS[at], label=name)
left.set_xticks(range(3), ["A", "B", "C"])
left.set(ylabel="probability", ylim=(0, 0.85))
left.legend(ncols=3, loc="upper right", columnspacing=0.8, handlelength=1)
for ax, values, name in ((middle, hard, "hard loss, nats"), (right, soft, "KL(teacher ‖ student), nats")):
    ax.bar_label(ax.bar(["student 1", "student 2"], values, color=COLORS[1:3]), fmt="%.4f", padding=2)
    ax.set(ylabel=name, ylim=(0, 1.2 * max(values)))
show(fig, f"Bars of teacher and two students over A, B, C; their hard losses {hard[0]:.4f} and {hard[1]:.4f}; their "
          f"divergences {soft[0]:.4f} and {soft[1]:.4f}.",
     title=f"The hard loss {'cannot' if word == 'correct' else 'can'} tell them apart; KL says "
           f"{soft[0]:.4f} against {soft[1]:.4f}")
turned = float(F.kl_div(p.log(), near, reduction="batchmean"))
mean = float((p * (p / near).log()).mean())
entropy = float(-(p * p.log()).sum())
print(f"KL(t‖s) = {soft[0]:.4f}, turned round {turned:.4f}; divided by the three classes as well (reduction='mean') "
      f"{mean:.4f}\ncross-entropy {soft[0] + entropy:.4f} = entropy of the teacher {entropy:.4f} + KL")
verdict("A05.19", word, f"Hard loss {hard[0]:.4f} for both students. KL {soft[0]:.4f} nats for the student of the "
        f"notes, {soft[1]:.4f} for one that confuses B with C.")

# %% [markdown]
# Mind the two slips that are printed there. `F.kl_div(input, target)` takes the *student's log-probabilities* first and
# the *teacher's probabilities* second, the other way round than one writes KL; and of its reductions, only `batchmean`
# is a mean over tokens, provided that each row *is* a token.
#
# ## Hard and soft together
#
# The notes add both losses, and stop there. But a temperature also changes how *strongly* a loss pulls. The gradient
# for the student's logit $s_i$, with teacher's logits $t$, is (Hinton's equations 2 to 4, for $N$ classes and logits
# whose mean is 0)
#
# $$\frac{\partial\,\mathrm{KL}}{\partial s_i} = \frac{1}{T}\Big(\mathrm{softmax}(s/T)_i -
# \mathrm{softmax}(t/T)_i\Big) \;\approx\; \frac{s_i - t_i}{N\,T^2} \quad \text{for large } T .$$
#
# One $1/T$ is written in front, a second hides in the difference. So the soft part is multiplied by $T^2$. Let us
# measure that twice: for 10 classes with drawn logits, as in Hinton's time, and on the real teacher with its 49,152. As
# its "student" we take the same model when it stops after 24 of its 30 layers.
#
# Fixed before the run: "two losses" is *imprecise* if in both, from T = 1 to T = 8, the soft gradient falls to less
# than an eighth without $T^2$; else *correct*. (The $1/T$ in front makes an eighth by itself. The bar was a quarter at
# first, which asks less.)

# %% claim="A05.18"
passage = tokenizer(shakespeare()[4_000_000:4_000_400], return_tensors="pt").input_ids[:, :48]
with torch.no_grad():
    out = model(passage, output_hidden_states=True)
    hidden = torch.stack(out.hidden_states)[:, 0]  # [layers + 1, tokens, width]
    wise, early = out.logits[0, :-1], model.lm_head(model.model.norm(hidden[24]))[:-1]
drawn = torch.Generator().manual_seed(0)
ten = 3 * torch.randn(500, 10, generator=drawn)
pupil = 0.6 * ten + 1.5 * torch.randn(500, 10, generator=drawn)
truth = torch.multinomial(ten.softmax(-1), 1, generator=drawn)[:, 0]
TEMPERATURES = [1, 1.5, 2, 3, 4, 6, 8, 12, 16]


def pulls(s, t, labels):
    """Length of the soft gradient (root mean square over tokens) in units of the hard one's, for each temperature."""
    step = s.softmax(-1)
    step[torch.arange(len(s)), labels] -= 1
    hard = step.norm() / len(s) ** 0.5
    squares = dict.fromkeys(TEMPERATURES, 0.0)
    for mine, its in zip(s.split(16), t.split(16), strict=True):  # a few tokens at a time: less memory
        for T in TEMPERATURES:
            squares[T] += ((mine / T).softmax(-1) - (its / T).softmax(-1)).square().sum() / T**2
    return {T: float((each / len(s)) ** 0.5 / hard) for T, each in squares.items()}


few, many = pulls(pupil, ten, truth), pulls(early, wise, passage[0, 1:])
out = wise = None
give_back()  # memory for what follows
word = "imprecise" if max(few[8] / few[1], many[8] / many[1]) < 1 / 8 else "correct"
fig, axes = figure(1, 2, width=10.5, height=3.4, sharey=True)
for ax, found, name in ((axes[0], few, "10 classes"), (axes[1], many, f"{early.shape[-1]:,} tokens")):
    ax.plot(TEMPERATURES, list(found.values()), color=COLORS[1], marker="s", label="KL as it is")
    ax.plot(TEMPERATURES, [T**2 * each for T, each in found.items()], color=COLORS[0], marker="o", label="KL · T²")
    ax.axhline(1, color="black", linestyle=":", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="temperature T", title=name)
    ax.set_xticks(TEMPERATURES, [f"{T:g}" for T in TEMPERATURES])
    ax.minorticks_off()
axes[0].set(ylabel="gradient of the soft loss\n(hard one's = 1, dotted)")
axes[0].legend(loc="lower left")
show(fig, "Length of the soft gradient against T, in two panels. As it is, from T = 1 to 8: "
          f"{few[1]:.2f} to {few[8]:.3f} and {many[1]:.2f} to {many[8]:.4f}; times T squared {64 * few[8]:.2f} and "
          f"{64 * many[8]:.2f}.",
     title=f"With T² the soft gradient goes from {few[1]:.2f} at T = 1 to {64 * few[8]:.2f} at T = 8 (10 classes); "
           f"in a real vocabulary to {64 * many[8]:.2f}")
verdict("A05.18", word, f"Without T² the soft loss pulls {few[1]:.2f} times as strongly as the hard one at T = 1 and "
        f"{few[8]:.3f} times at T = 8 (10 classes); in the real vocabulary {many[1]:.2f} and {many[8]:.4f}. And "
        "it needs the teacher's logits, which a data set of questions and answers doesn't hold.")

# %% [markdown]
# Look at the right panel as well: what becomes of the factor there?
#
# ### Which temperature?
#
# Hinton's approximation is for a temperature that is high *compared with the logits*, where the factor leaves
# $(s_i - t_i)/N$: with tens of thousands of classes next to nothing, and nearly all of it in the tail of the
# vocabulary. Hinton distilled readers of digits at up to 20; language models are mostly distilled near 1.
#
# ### The whole loss
#
# The loss of Hinton's paper, then, for labels $y$ and a weight $\alpha$:
#
# $$\alpha\, T^2\, \mathrm{KL}\big(\mathrm{softmax}(t/T) \,\|\, \mathrm{softmax}(s/T)\big)
# + (1 - \alpha)\,\big(-\log \mathrm{softmax}(s)_y\big)$$
#
# Both are means over tokens. Padding counts in neither, and the teacher learns from neither.
#
# ### Exercise 2: the distillation loss

# %% exercise="distillation_loss"
def distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100):
    """Hinton's loss: soft targets from the teacher, hard labels from the data, mixed.

    student:      float32 or float64 logits [..., classes], finite; some may be in the hundreds
    teacher:      logits of the same shape and dtype. No gradient flows to them.
    labels:       int64 [...]: the class that is right, or ignore_index, which marks a token that
                  counts in neither part. Labels stand where their logits stand: nothing is to
                  be shifted. At least one label counts.
    temperature:  a number > 0, for both distributions of the soft part
    alpha:        the weight of the soft part, from 0 to 1; the hard part has 1 - alpha
    ignore_index: an int, which may be a class

    Returns a tensor of no dimension and of student's dtype: alpha * T**2 * KL(teacher ||
    student) at temperature T, plus (1 - alpha) * cross-entropy at temperature 1, in nats. Each
    part is a mean over all tokens that count, of the whole batch together. Gradients flow to
    student.
    Source: Hinton, Vinyals and Dean, 2015, arXiv:1503.02531, section 2.
    """
    ### BEGIN SOLUTION
    kept = labels != ignore_index
    s, t = student[kept], teacher[kept].detach()
    log_s, log_t = (s / temperature).log_softmax(-1), (t / temperature).log_softmax(-1)
    soft = F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
    hard = F.cross_entropy(s, labels[kept])
    return alpha * temperature**2 * soft + (1 - alpha) * hard
    ### END SOLUTION


# %% check="distillation_loss"
check(distillation_loss)

# %% [markdown]
# ## A teacher of our own
#
# To see a student grow up we need a teacher that fits into seconds: a LLaMA that reads Shakespeare letter by letter,
# and a student with a fraction of its weights. The teacher's pieces are drawn from four and a half million letters. The
# student owns a booklet: the first 20,000.

# %% tags=["demo"]
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

book = shakespeare()
alphabet = "".join(sorted(set(book)))
letters = book.encode().translate(bytes.maketrans(alphabet.encode(), bytes(range(len(alphabet)))))
ids = torch.frombuffer(bytearray(letters), dtype=torch.uint8)
whole, booklet, unseen = ids[:4_500_000], ids[:20_000], ids[4_800_000:]
N, ROWS = 48, 16


def llama(width, layers, seed=0):
    """A LLaMA with random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(alphabet), hidden_size=width, intermediate_size=round(8 / 3 * width), num_hidden_layers=layers,
        num_attention_heads=4, initializer_range=width**-0.5, tie_word_embeddings=False,
        pad_token_id=None, bos_token_id=None, eos_token_id=None))


def pieces(source, rows, g):
    """Pieces of a text: inputs and targets, both [rows, N]."""
    cut = source[torch.randint(len(source) - N, (rows, 1), generator=g) + torch.arange(N + 1)].long()
    return cut[:, :-1], cut[:, 1:]


TEST = pieces(unseen, 96, torch.Generator().manual_seed(5))


@torch.no_grad()
def test_loss(net):
    """Nats a letter on unseen text."""
    return float(F.cross_entropy(net(TEST[0], use_cache=False).logits.mT, TEST[1]))


def learn(net, source, steps, loss, rate=1e-2, every=25):
    """Train on pieces of a text, with any `loss(logits, inputs, targets)`: the test loss, every few steps."""
    g, curve = torch.Generator().manual_seed(0), []
    optimizer = torch.optim.AdamW(net.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    for step in range(steps):
        fall = 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 25, fall)
        inputs, targets = pieces(source, ROWS, g)
        optimizer.zero_grad()
        loss(net(inputs, use_cache=False).logits, inputs, targets).backward()
        optimizer.step()
        if (step + 1) % every == 0:
            curve.append(test_loss(net))
    return curve


def from_labels(logits, inputs, targets):
    return F.cross_entropy(logits.mT, targets)


began = time.process_time()
teacher = llama(64, 2)
lessons = learn(teacher, whole, 300, from_labels)
teacher.requires_grad_(False)
alone = learn(llama(32, 2), booklet, 200, from_labels)
for name, net, curve in (("teacher", teacher, lessons), ("student, alone with its booklet", llama(32, 2), alone)):
    print(f"{name}: {sum(w.numel() for w in net.parameters()):,} weights, {curve[-1]:.2f} nats a letter on unseen text")
print(f"{time.process_time() - began:.0f} s of the processor")
give_back()

# %% [markdown]
# Now with your loss. The text stays the booklet; the teacher only says what it thinks of it, at $T = 1$.

# %% tags=["payoff"]
def taught(alpha):
    """Your loss, with the teacher's logits for the same letters."""
    def loss(logits, inputs, targets):
        with torch.no_grad():
            opinion = teacher(inputs, use_cache=False).logits
        return distillation_loss(logits, opinion, targets, temperature=1.0, alpha=alpha)
    return loss


curves = {"labels only": alone} | {f"alpha = {a:g}": learn(llama(32, 2), booklet, 200, taught(a)) for a in (0.5, 1.0)}
fig, ax = figure(width=8.4, height=3.4)
for (name, curve), color, mark in zip(curves.items(), (COLORS[1], COLORS[2], COLORS[0]), "s^o", strict=True):
    ax.plot(range(25, 201, 25), curve, color=color, marker=mark, label=name)
ax.axhline(lessons[-1], color="black", linestyle=":", linewidth=1)
ax.text(200, lessons[-1] + 0.02, "teacher", ha="right", fontsize=9)
ax.set(xlabel="step (768 letters each, all from the booklet)", ylabel="loss on unseen text\n(nats a letter)")
ax.legend()
ends = {name: curve[-1] for name, curve in curves.items()}
show(fig, "Test loss against the step for three students: " + ", ".join(f"{n} ends at {v:.2f}" for n, v in ends.items())
     + f". The teacher has {lessons[-1]:.2f}.",
     title=f"The same 20,000 letters: {ends['labels only']:.2f} nats from labels, {ends['alpha = 1']:.2f} from the "
           "teacher")

# %% [markdown]
# One run, one seed, one rate, one text: an anecdote. The question of the notebook needs more.
#
# ## What is the teacher worth?
#
# The same experiment at a size that takes minutes, with results that are kept: a better teacher, three seeds for every
# student, each setting at the best of three learning rates, chosen on a text of its own. First the promise itself:
# "faster, smaller, as good as possible". Size and *speed* are measured here: 48 letters at once (**prefill**), and one
# letter at a time with a cache (**decoding**), a single text each.
#
# Fixed before the run: the promise is *correct* if the student needs less than four fifths of the time in both, and is
# with its teacher surely better than the same student that saw the same text alone; *imprecise* if only one of the two
# holds; else *wrong*. A second network of the teacher's shape is timed in turn: if it is as fast, too, *unverifiable*.
# (That control, and the four fifths, were added later.)

# %% claim="A05.16"
found = evidence("A05.20")
nets = {"teacher": llama(96, 3), "student": llama(32, 2), "another": llama(96, 3, seed=1)}


@torch.no_grad()
def milliseconds(one_at_a_time, repeats=12):
    """Each network's best of several runs, in turn, in milliseconds of the processor: nothing else is counted."""
    times = {name: [] for name in nets}
    for name, net in [*nets.items()] * repeats:
        cache = DynamicCache()
        net(TEST[0][:1, :24], past_key_values=cache, use_cache=True)
        began = time.process_time()
        if one_at_a_time:
            net(TEST[0][:1, 24:25], past_key_values=cache, use_cache=True)
        else:
            net(TEST[0][:1], use_cache=False)
        times[name].append(time.process_time() - began)
    return {name: 1000 * min(each) for name, each in times.items()}


size = {name: sum(w.numel() for w in net.parameters()) / 1000 for name, net in nets.items()}
prefill, decode = milliseconds(False), milliseconds(True)
gain = found.interval("alone", "loss", minus="with teacher")
faster = all(of["student"] < 0.8 * of["teacher"] for of in (prefill, decode))
fooled = any(of["another"] < 0.8 * of["teacher"] for of in (prefill, decode))
word = "correct" if faster and gain.above(0) else "imprecise" if faster or gain.above(0) else "wrong"
word = "unverifiable" if fooled else word

fig, axes = figure(1, 4, width=10.5, height=2.9)
columns = {"weights, thousands": size, "48 letters at once, ms": prefill, "one letter, ms": decode}
columns = {name: {net: of[net] for net in ("teacher", "student")} for name, of in columns.items()}
for ax, (name, of) in zip(axes, columns.items(), strict=False):
    ax.bar_label(ax.barh(list(of), list(of.values()), color=[COLORS[3], COLORS[0]]), fmt="%.3g", padding=3)
    ax.set(xlabel=name, xlim=(0, 1.3 * max(of.values())))
    ax.invert_yaxis()
    if ax is not axes[0]:
        ax.set_yticks([])
quality = {"teacher": "teacher", "student,\nwith teacher": "with teacher", "student,\nalone": "alone"}
for row, arm in enumerate(quality.values()):
    losses = found.each(arm, "loss")
    color = (COLORS[3], COLORS[0], COLORS[1])[row]
    axes[3].plot(losses, [row] * len(losses), "o", color=color, markersize=7, alpha=0.6)
axes[3].set_yticks(range(3), list(quality))
axes[3].set(xlabel="loss, nats a letter", ylim=(2.5, -0.5))
better = {arm: found.interval(arm, "loss").mean for arm in quality.values()}
times = {name: of["teacher"] / of["student"] for name, of in columns.items()}
show(fig, "Bars of size and speed, teacher against student, dots of quality. Weights in thousands "
          f"{size['teacher']:.0f}, {size['student']:.0f}; 48 letters {prefill['teacher']:.1f}, "
          f"{prefill['student']:.1f} ms; one letter {decode['teacher']:.1f}, {decode['student']:.1f} ms; loss "
          + ", ".join(f"{arm} {v:.2f}" for arm, v in better.items()) + ".",
     title=f"{times['weights, thousands']:.0f} times fewer weights: {times['48 letters at once, ms']:.1f} times as "
           f"fast at 48 letters at once, {times['one letter, ms']:.1f} times at one letter")
verdict("A05.16", word, f"The student has {size['student']:.0f} thousand weights, the teacher {size['teacher']:.0f}; "
        f"prefill {prefill['student']:.1f} ms against {prefill['teacher']:.1f}, a letter {decode['student']:.1f} ms "
        f"against {decode['teacher']:.1f} (a second network of the teacher's shape: {prefill['another']:.1f} and "
        f"{decode['another']:.1f}). For the same text the teacher saves it {gain.text()} nats a letter.")

# %% [markdown]
# Look at *one letter*: is the gain nearer to that of the weights, or to three layers against two? In so small a model
# the starting of each operation takes its time, in a large one the reading of the weights. Speed has to be measured at
# the size, the batch and the machine at which you will serve; no ratio of parameters gives it away.
#
# ## Against the same student alone
#
# "Most of the performance is kept, quality doesn't fall significantly." Would it have been kept without a teacher?
# A step with a teacher costs more: the student needs 6 operations a weight and token (forward and backward), the
# teacher 2 more for each of *its* weights. So there are two fair opponents: the same student on the **same text**, and
# the same student for the **same compute**, which sees several times as much. (Nobody has to use it all: the better of
# the two runs counts. What it cost to train the teacher is not in the bill.) And two situations: text without end, or a
# booklet of 20,000 letters.
#
# Fixed before the run, for the student with a teacher and endless text: it keeps *most* if it surely has over half of
# what the teacher learned beyond the frequencies of letters; it *doesn't fall* if it is surely less than 0.05 nats
# worse. Both: *correct*. One: *imprecise*. None: *wrong*. The control stands beside it: how much of that has the same
# student alone?

# %% claim="A05.21"
often, unseen_often = (torch.bincount(part, minlength=len(alphabet)) + 1.0 for part in (whole, unseen))
guess = float(F.cross_entropy(often.log(), unseen_often / unseen_often.sum()))


def share_of(arm):
    """Of what the teacher learned beyond frequencies, seed by seed."""
    pairs = zip(found.each(arm, "loss"), found.each("teacher", "loss"), strict=True)
    return interval([(guess - student) / (guess - wise_one) for student, wise_one in pairs])


kept, kept_alone = share_of("with teacher"), share_of("alone")
behind = found.interval("with teacher", "loss", minus="teacher")
holds = [kept.above(0.5), behind.below(0.05)]
word = {2: "correct", 1: "imprecise", 0: "wrong"}[sum(holds)]

ROUTES = ["alone", "with teacher", "alone, same compute"]
fig, axes = figure(1, 2, width=10.5, height=3.0, sharey=True)
for ax, start, name in ((axes[0], "", "Text without end"), (axes[1], "little text: ", "A booklet of 20,000 letters")):
    for row, arm in enumerate(ROUTES):
        losses, color = found.each(start + arm, "loss"), (COLORS[1], COLORS[0], COLORS[2])[row]
        ax.plot(losses, [row] * len(losses), "o", color=color, markersize=7, alpha=0.5)
        ax.plot(interval(losses).mean, row, "|", color=color, markersize=22, markeredgewidth=2.5)
    ax.axvline(better["teacher"], color="black", linestyle=":", linewidth=1)
    ax.text(better["teacher"], 2.42, " teacher", fontsize=9, va="bottom")
    ax.set(xlabel="loss on unseen text, nats a letter", title=name, ylim=(2.5, -0.5))
axes[0].set_yticks(range(3), ROUTES)


def saved_by(start, opponents):
    """What the teacher saves against the best of some opponents, seed by seed: who has compute need not use it all."""
    others = [min(each) for each in zip(*(found.each(start + arm, "loss") for arm in opponents), strict=True)]
    return interval([a - b for a, b in zip(others, found.each(start + "with teacher", "loss"), strict=True)])


worth = {"same": saved_by("", ["alone"]), "compute": saved_by("", ROUTES[::2]),
         "little": saved_by("little text: ", ["alone"]), "little compute": saved_by("little text: ", ROUTES[::2])}


def told(each):
    """What a teacher is worth against an opponent: how many nats it saves, or ± where the two aren't told apart."""
    sign = "+" if each.above(0) else "−" if each.below(0) else "±"
    return f"{sign}{abs(each.mean):.2f}"


show(fig, "Dots of three seeds for three students, in two panels. With a teacher against: " + "; ".join(
    f"{name} {each.mean:+.2f} nats" for name, each in worth.items()) + ".",
     title=f"Nats that a teacher saves: same text {told(worth['same'])}, same compute {told(worth['compute'])}; "
           f"with a booklet {told(worth['little'])} and {told(worth['little compute'])}")


def at_the_ends(of, arms, least, most):
    """Which arms were best at an end of the learning rates that were tried."""
    best_at = {rate: ", ".join(arm for arm in arms if rate in of.each(arm, "rate")) for rate in (least, most)}
    return (f"Of three learning rates the smallest, {least:g}, was the best for {best_at[least] or 'none'}; the "
            f"largest, {most:g}, for {best_at[most] or 'none'}.")


print(at_the_ends(found, [arm for arm in found.arms if arm not in ("teacher", "cut short")], 0.01, 0.04))
verdict("A05.21", word, f"With a teacher the student has {kept.text('.0%')} of what the teacher knows beyond the "
        f"frequencies of letters (alone, on the same text, {kept_alone.text('.0%')}), and is {behind.text()} nats a "
        "letter behind it. Against itself alone: same text "
        f"{worth['same'].text('+.2f')} nats, same compute {worth['compute'].text('+.2f')}; with little text "
        f"{worth['little'].text('+.2f')} and {worth['little compute'].text('+.2f')} (plus: the teacher helps).")

# %% [markdown]
# So ask of every table in which a distilled model comes first: against whom?
#
# ### At the size of real models
#
# Busbridge et al. (2025, [arXiv:2502.08606](https://arxiv.org/abs/2502.08606)) drew the map. If the teacher exists
# anyway, distillation wins up to an amount of compute that grows with the student; if the teacher has to be trained
# for this one student, plain training is generally preferable. Gemma 2 (2024,
# [arXiv:2408.00118](https://arxiv.org/abs/2408.00118)) reports a model of 2 billion parameters after 500 billion
# tokens, from scratch and distilled: 60.3 and 67.7, the average of three benchmarks. The same *tokens*, mind.
#
# ## Does it arrive?
#
# "Through repeated iteration the student gradually approaches the teacher." Several times as many steps, then. Fixed
# before the run: *correct* if the longer run surely leaves less than a tenth of the distance that the student alone had
# to its teacher; *imprecise* if it surely comes nearer and surely leaves more; *wrong* if it surely leaves more without
# surely coming nearer; else *unverifiable*. Dashed beside it: as many steps without a teacher.

# %% claim="A05.20"
RUNS = ["with teacher", "with teacher, as many steps"]


def left_over(arm):
    """Each seed's distance to the teacher, in units of that of the student alone."""
    three = zip(*(found.each(name, "loss") for name in (arm, "alone", "teacher")), strict=True)
    return interval([(student - wise_one) / (single - wise_one) for student, single, wise_one in three])


first, last, by_itself = (left_over(arm) for arm in (*RUNS, "alone, same compute"))
nearer = found.interval(RUNS[0], "loss", minus=RUNS[1])
if last.below(0.1):
    word = "correct"
elif nearer.above(0):
    word = "imprecise" if last.above(0.1) else "unverifiable"
else:
    word = "wrong" if last.above(0.1) else "unverifiable"

fig, ax = figure(width=8.8, height=3.5)
for arm, color, style in (("alone, same compute", COLORS[2], "--"), (RUNS[1], COLORS[0], "-")):
    steps, curves_of = int(found.each(arm, "steps")[0]), found.each(arm, "curve")
    at = [steps * (i + 1) / len(curves_of[0]) for i in range(len(curves_of[0]))]
    over = [interval(values) for values in zip(*curves_of, strict=True)]
    ax.plot(at, [each.mean for each in over], color=color, linestyle=style, marker="o",
            label="with teacher" if "with" in arm else "alone")
    ax.fill_between(at, [each.low for each in over], [each.high for each in over], color=color, alpha=0.2)
ax.axhline(better["teacher"], color="black", linestyle=":", linewidth=1)
ax.text(at[-1], better["teacher"] + 0.015, "teacher", ha="right", fontsize=9)
ax.set(xlabel="steps (768 letters each; the learning rate falls to a tenth at the end)",
       ylabel="loss on unseen text\n(nats a letter)", ylim=(better["teacher"] - 0.05, None))
ax.legend()
long = {arm: found.interval(arm, "loss").mean for arm in (RUNS[1], "alone, same compute")}
show(fig, f"Test loss against steps. With a teacher it ends at {long[RUNS[1]]:.2f}, alone at "
          f"{long['alone, same compute']:.2f}; the teacher has {better['teacher']:.2f}.",
     title=f"{int(found.each(RUNS[1], 'steps')[0]):,} steps leave {last.mean:.0%} of the distance to the teacher "
           f"({int(found.each(RUNS[0], 'steps')[0])} steps: {first.mean:.0%}), without a teacher {by_itself.mean:.0%}")
print(found.again())
verdict("A05.20", word, f"Left of the distance to the teacher: {first.text('.0%')} after "
        f"{int(found.each(RUNS[0], 'steps')[0])} steps, {last.text('.0%')} after "
        f"{int(found.each(RUNS[1], 'steps')[0]):,}; after as many without a teacher {by_itself.text('.0%')} (95 % "
        "intervals).")

# %% [markdown]
# What is left then may be a matter of steps (is the curve level yet?) or of **capacity**: a model that can't hold the
# teacher's function won't, however often it is told.
#
# ### A teacher too far ahead
#
# It may even teach worse than a weaker one (Mirzadeh et al. 2020,
# [arXiv:1902.03393](https://arxiv.org/abs/1902.03393)); they put a *teaching assistant* of medium size in between.
#
# ## More than the last word: hidden states
#
# A teacher can also show how it thinks. DistilBERT aligns the *directions* of the last hidden states, with a cosine;
# where the widths differ, TinyBERT learns a matrix $W$ that carries the student's states $h$ into the teacher's space
# (Jiao et al. 2020, [arXiv:1909.10351](https://arxiv.org/abs/1909.10351)). Together:
#
# $$\text{mean over tokens of}\quad 1 - \cos\big(W h^{\text{student}},\; h^{\text{teacher}}\big)$$
#
# ### Exercise 3: the loss of hidden states

# %% exercise="feature_loss"
def feature_loss(student, teacher, mask, projection=None):
    """One minus the cosine of the student's and the teacher's hidden states, mean over tokens.

    student:    floating point [..., n, d]: the student's hidden states
    teacher:    [..., n, D], of the same dtype. No gradient flows to it.
    mask:       bool [..., n]: True where a token counts, False at padding. At least one counts.
                Vectors of tokens that count aren't zero. At padding anything finite may stand,
                also zeros; it must neither count nor make a gradient NaN.
    projection: None (then d = D), or [D, d]: the weight of a linear layer without bias, which
                makes the student's states as wide as the teacher's. It is used wherever it is
                given, also if d = D, and gradients flow to it.

    Returns a tensor of no dimension and of student's dtype: the mean of 1 - cosine over all
    tokens that count, of the whole batch together. Gradients flow to student.
    Sources: Sanh et al., DistilBERT, 2019, arXiv:1910.01108 (cosine); Jiao et al., TinyBERT,
    2020, arXiv:1909.10351 (projection).
    """
    ### BEGIN SOLUTION
    s, t = student[mask], teacher[mask].detach()
    if projection is not None:
        s = F.linear(s, projection)
    return (1 - F.cosine_similarity(s, t, dim=-1)).mean()
    ### END SOLUTION


# %% check="feature_loss"
check(feature_loss)

# %% [markdown]
# DistilBERT's student *begins* as every second layer of its teacher. Why should that be a good beginning? Your loss,
# between the layers of the real model, on 48 tokens of Shakespeare; and, as a control, with the token before:

# %% tags=["payoff"]
shown = list(range(1, len(hidden) - 1))  # the last one has passed the final norm
everywhere = torch.ones(1, hidden.shape[1], dtype=torch.bool)
apart = torch.tensor([[float(feature_loss(hidden[None, a], hidden[None, b], everywhere)) for b in shown]
                      for a in shown])
fig, ax = figure(width=6.4, height=4.3)
drawn = ax.imshow(apart, cmap=SEQUENTIAL, origin="lower", extent=(0.5, len(shown) + 0.5) * 2)
ax.set(xlabel="behind layer", ylabel="behind layer")
fig.colorbar(drawn, ax=ax, label="1 − cosine, mean of 48 tokens")
two_on = float(apart.diagonal(2).mean())
strangers = [feature_loss(hidden[None, a, 1:], hidden[None, a + 2, :-1], everywhere[:, 1:]) for a in shown[:-2]]
of_another = float(torch.stack(strangers).mean())
show(fig, f"A heat map of 1 minus cosine between the states behind each pair of layers; two layers apart "
          f"{two_on:.2f} in the mean, at most {apart.max():.2f}. Two layers on and of the token before: "
          f"{of_another:.2f}.",
     title=f"Two layers on: {two_on:.2f}, of the token before {of_another:.2f}; at most {apart.max():.2f}")

# %% [markdown]
# ## DistilBERT by its own tables
#
# "DistilBERT (October 2019): 60 % faster, 40 % less memory, 97 % of BERT's performance." The parameters we count
# ourselves, from the configurations that transformers has as defaults. Seconds and scores are those of tables 1 and 3
# of the paper (Sanh et al. 2019, [arXiv:1910.01108](https://arxiv.org/abs/1910.01108)).
#
# Fixed before the run: *correct* if all three numbers come out within 3 points and no task of the nine keeps less than
# 94 %; *imprecise* if the three hold on average, but not for each task; else *wrong*.

# %% claim="A05.22"
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

with torch.device("meta"):  # shapes without memory
    million = [sum(w.numel() for w in net.parameters()) / 1e6
               for net in (BertModel(BertConfig()), DistilBertModel(DistilBertConfig()))]
SECONDS = (668, 410)
GLUE = {"CoLA": (56.3, 51.3), "MNLI": (86.7, 82.2), "MRPC": (88.6, 87.5), "QNLI": (91.8, 89.2), "QQP": (89.6, 88.5),
        "RTE": (69.3, 59.9), "SST-2": (92.7, 91.3), "STS-B": (89.0, 86.9), "WNLI": (53.5, 56.3)}
saved, speed = 1 - million[1] / million[0], SECONDS[0] / SECONDS[1] - 1
share = {task: small / large for task, (large, small) in GLUE.items()}
overall = sum(small for _, small in GLUE.values()) / sum(large for large, _ in GLUE.values())
near_by = [abs(saved - 0.40) < 0.03, abs(speed - 0.60) < 0.03 + 1e-9, abs(overall - 0.97) < 0.03]
word = "wrong" if not all(near_by) else "correct" if min(share.values()) >= 0.94 else "imprecise"

fig, (left, right) = figure(1, 2, width=10.5, height=3.5, width_ratios=[1, 1.7])
left.bar_label(left.bar(["parameters", "time", "score"], [100 * (1 - saved), 100 / (1 + speed), 100 * overall],
                        color=COLORS[:3]), fmt="%.1f %%", padding=2)
left.set(ylabel="DistilBERT, % of BERT", ylim=(0, 115))
ranked = sorted(share, key=share.get)
colors = [COLORS[1] if share[task] < 0.94 else COLORS[0] for task in ranked]
right.barh(ranked, [100 * share[task] for task in ranked], color=colors)
right.axvline(97, color="black", linestyle=":", linewidth=1)
right.set(xlabel="score, % of BERT's (dotted: 97 %)", xlim=(80, 110))
low, high = ranked[0], ranked[-1]
show(fig, f"Left: DistilBERT's parameters, time and mean score in percent of BERT's: {1 - saved:.1%}, "
          f"{1 / (1 + speed):.1%}, {overall:.1%}. Right, each task: from {low} {share[low]:.0%} to {high} "
          f"{share[high]:.0%}.",
     title=f"“97 %” is a mean of nine tasks, from {share[low]:.0%} ({low}) to {share[high]:.0%} ({high})")
verdict("A05.22", word, f"Parameters {million[1]:.1f} M of {million[0]:.1f} M: {saved:.0%} fewer. Time {SECONDS[0]} → "
        f"{SECONDS[1]} s: {1 - 1 / (1 + speed):.0%} less, {1 + speed:.2f} times as fast. Score {overall:.1%} in the "
        f"mean, {share[low]:.0%} on {low}.")

# %% [markdown]
# What is true of each of the three numbers?
#
# ### How to say it in an interview
#
# In the paper it was *size*: the sentence's "memory" is true of the weights only. "Faster" means work done in a given
# time: the time itself doesn't fall by that share. And a ratio of accuracies flatters: guessing is right half of the
# time where an answer is yes or no, as in RTE, so compare what lies *above* guessing.
#
# ## When there are no logits: the teacher's own texts
#
# Many an API gives text and no logits. Then the student learns from what the teacher *wrote*: **sequence-level
# distillation** (Kim and Rush 2016, [arXiv:1606.07947](https://arxiv.org/abs/1606.07947)), which the notes describe as
# collecting questions and answers. DeepSeek-R1's distilled models are of this kind: plain fine-tuning on about 800,000
# curated samples, three quarters of them reasoning (2025, [arXiv:2501.12948](https://arxiv.org/abs/2501.12948)).
#
# It is a job of many small rules, and errors in them are silent. Here a real teacher answers three questions, three
# times each, in at most 20 tokens. Some may be cut off.

# %% tags=["demo"]
QUESTIONS = ["What is the capital of Italy?", "What is the opposite of hot?", "What do bees make?"]
LIMIT, END = 20, tokenizer.eos_token_id
asked, answers = [], []
torch.manual_seed(3)
for question in QUESTIONS:
    turns = [{"role": "system", "content": "Answer in a few words."}, {"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, return_tensors="pt").input_ids
    said = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=0.7,
                          max_new_tokens=LIMIT, num_return_sequences=3, pad_token_id=END)
    asked.append(prompt[0].tolist())
    answers.append(said[:, prompt.shape[1] :].tolist())
    print(question, *(repr(tokenizer.decode(one, skip_special_tokens=True)) for one in answers[-1]), sep="\n    ")
give_back()

# %% [markdown]
# * **The student answers, it doesn't ask.** Labels are −100 at the prompt: nothing is learned there.
# * **It has to learn to stop.** The end of the turn is a label, too, even where `pad` has the same id.
# * **What was cut off teaches to break off.** Answers without an end are left out, and so is what is too long.
# * Behind the end there is only what generation padded with. Twins and empty answers are of no use.
#
# ### Exercise 4: data that a teacher wrote

# %% exercise="sequence_distillation_data"
def sequence_distillation_data(prompts, answers, eos, pad, max_length):
    """A batch to train a student on what its teacher wrote.

    prompts:    a list of prompts, each a list of token ids, not empty; ids may be those of eos
                or pad
    answers:    for each prompt a list of the teacher's answers, one or more, each a list of ids
                as it was generated, not empty. An answer ends with its first eos, that one
                included; what stands behind it is padding of the generation and is dropped. An
                answer without eos was cut off.
    eos, pad:   ids; pad may be the same as eos, or the id of a token that occurs
    max_length: the most tokens that an example, prompt and answer together, may have

    Left out are: answers that were cut off; answers of nothing but eos; examples longer than
    max_length (they are not shortened); and examples (same prompt and same answer) that are
    there already. At least one example is left. The order is that of the prompts and, for each,
    of its answers.

    Returns a dict of three int64 tensors [examples, longest example], padded on the right:
    "input_ids" (prompt, answer, then pad), "labels" (the answer's ids where the answer stands,
    its eos too, and -100 elsewhere; not shifted), "attention_mask" (1 at tokens, 0 at padding).
    Source: Kim and Rush, 2016, arXiv:1606.07947; the batch is that of transformers' models.
    """
    ### BEGIN SOLUTION
    pairs = []
    for prompt, some in zip(prompts, answers, strict=True):
        for answer in some:
            if eos not in answer[1:] or answer[0] == eos:
                continue
            pair = (prompt, answer[: answer.index(eos) + 1])
            if len(pair[0]) + len(pair[1]) <= max_length and pair not in pairs:
                pairs.append(pair)
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    rows = {"input_ids": [], "labels": [], "attention_mask": []}
    for prompt, answer in pairs:
        length = len(prompt) + len(answer)
        rows["input_ids"].append(prompt + answer + [pad] * (longest - length))
        rows["labels"].append([-100] * len(prompt) + answer + [-100] * (longest - length))
        rows["attention_mask"].append([1] * length + [0] * (longest - length))
    return {name: torch.tensor(row) for name, row in rows.items()}
    ### END SOLUTION


# %% check="sequence_distillation_data"
check(sequence_distillation_data)

# %% [markdown]
# The batch that you made, one row an example:

# %% tags=["payoff"]
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

batch = sequence_distillation_data(asked, answers, END, END, 64)
kind = batch["attention_mask"] + (batch["labels"] != -100) + (batch["labels"] == END)
shades = ["#ffffff", "#c8c8c8", COLORS[0], COLORS[1]]
fig, ax = figure(width=10, height=0.9 + 0.32 * len(kind))
ax.imshow(kind, cmap=ListedColormap(shades), vmin=0, vmax=3, aspect="auto")
ax.hlines([i + 0.5 for i in range(len(kind) - 1)], -0.5, kind.shape[1] - 0.5, color="white", linewidth=3)
ax.set_yticks(range(len(kind)), range(1, len(kind) + 1))
ax.set(xlabel="token", ylabel="example")
fig.legend(handles=[Patch(color=shade, label=name) for shade, name in zip(shades[1:], (
    "prompt: read", "answer: learned", "end: learned"), strict=True)], loc="outside right center")
used, drawn_all = len(kind), sum(map(len, answers))
learned = float((kind >= 2).sum() / (kind >= 1).sum())
show(fig, f"{used} rows of squares: grey prompts, blue answers, an orange end. {drawn_all} answers were written.",
     title=f"{used} of {drawn_all} answers are of use; {learned:.0%} of their tokens are learned")

# %% [markdown]
# ## Two ways to miss a teacher
#
# A student that is too small has to give something up. *What*, the direction of the divergence decides. Here is a
# teacher with two humps, and a student that can only be one bell:

# %% tags=["demo"]
grid = torch.linspace(-6, 6, 121)
humps = (torch.exp(-((grid + 2.2) ** 2) / 0.72) + 0.45 * torch.exp(-((grid - 2.2) ** 2) / 1.6)).log()


def bell(shape):
    """Logits of a bell over the grid, from (mean, log of the width)."""
    return -((grid - shape[0]) ** 2) / (2 * (2 * shape[1]).exp())


def kl(a, b):
    """KL(a || b), from logits."""
    log_a, log_b = a.log_softmax(-1), b.log_softmax(-1)
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def fit(loss, steps=150):
    """The bell with the least loss(logits), as (mean, log of the width): the best of three beginnings."""
    found = []
    for begin in ((-2.0, 0.0), (2.0, 0.0), (0.0, 1.0)):
        shape = torch.tensor(begin, requires_grad=True)
        optimizer = torch.optim.Adam([shape], 0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(bell(shape)).backward()
            optimizer.step()
        found.append((float(loss(bell(shape.detach()))), shape.detach()))
    return min(found, key=lambda each: each[0])[1]


forward, reverse = fit(lambda q: kl(humps, q)), fit(lambda q: kl(q, humps))
fig, ax = figure(width=8.6, height=3.2)
ax.fill_between(grid, humps.softmax(-1), color="#cccccc", label="teacher")
ax.plot(grid, bell(forward).softmax(-1), color=COLORS[0], label="student, forward KL(teacher ‖ student)")
ax.plot(grid, bell(reverse).softmax(-1), color=COLORS[1], linestyle="--",
        label="student, reverse KL(student ‖ teacher)")
ax.set(xlabel="what could be said", ylabel="probability", ylim=(0, None))
ax.legend(loc="upper right")
widths = [float(each[1].exp()) for each in (forward, reverse)]
show(fig, f"A grey curve with two humps. Fitted by forward KL a bell of width {widths[0]:.1f}, by reverse KL one "
          f"of width {widths[1]:.1f}.",
     title=f"One bell for two humps: forward KL makes it {widths[0]:.1f} wide, reverse KL {widths[1]:.1f}")

# %% [markdown]
# **Forward** KL punishes the student wherever the teacher speaks and it doesn't: it covers everything,
# also the gap in which the teacher says nothing. **Reverse** KL punishes it wherever it speaks and the teacher
# wouldn't: it picks one hump, and keeps silent about the other. A language model of the first kind would also say what
# its teacher never says, one of the second kind say few things, and those well. What really happens is measured below.
#
# Between the two, generalized knowledge distillation (GKD; Agarwal et al. 2024,
# [arXiv:2306.13649](https://arxiv.org/abs/2306.13649)) puts a whole family. With $m = \beta\, p + (1-\beta)\, q$,
#
# $$D_\beta(p, q) = \beta\, \mathrm{KL}(p \,\|\, m) + (1 - \beta)\, \mathrm{KL}(q \,\|\, m),$$
#
# where $p$ is the teacher and $q$ the student. At the ends it would vanish, so $\beta = 0$ *stands for* forward KL and
# $\beta = 1$ for reverse KL, towards which its gradient leans there.
#
# ### Exercise 5: from forward to reverse

# %% exercise="generalized_jsd"
def generalized_jsd(student, teacher, mask, beta=0.5):
    """From forward to reverse KL: the divergence of generalized knowledge distillation.

    student: float32 or float64 logits [..., n, classes], finite; some may be in the hundreds
    teacher: logits of the same shape and dtype. No gradient flows to them.
    mask:    bool [..., n]: True where a token counts. At least one does.
    beta:    a number from 0 to 1

    With the distributions p of the teacher and q of the student, each token costs
      beta = 0:      KL(p || q)
      beta = 1:      KL(q || p)
      between them:  beta * KL(p || m) + (1 - beta) * KL(q || m), m = beta * p + (1 - beta) * q
    in nats, where KL(a || b) = sum of a * (log a - log b) over the classes.
    Returns the mean over all tokens that count, of the whole batch together: a tensor of no
    dimension and of student's dtype. Gradients flow to student.
    Source: Agarwal et al., "On-Policy Distillation of Language Models", 2024, arXiv:2306.13649.
    """
    ### BEGIN SOLUTION
    log_q, log_p = student[mask].log_softmax(-1), teacher[mask].detach().log_softmax(-1)

    def kl(log_a, log_b):
        return (log_a.exp() * (log_a - log_b)).sum(-1).mean()

    if beta == 0:
        return kl(log_p, log_q)
    if beta == 1:
        return kl(log_q, log_p)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
    ### END SOLUTION


# %% check="generalized_jsd"
check(generalized_jsd)

# %% tags=["payoff"]
one = torch.ones(1, dtype=torch.bool)
BETAS = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]
bells = [fit(lambda q, b=b: generalized_jsd(q[None], humps[None], one, b)) for b in BETAS]
fig, (left, right) = figure(1, 2, width=10.5, height=3.3, width_ratios=[1.5, 1])
left.fill_between(grid, humps.softmax(-1), color="#dddddd")
shades = [[0.00 + 0.83 * b, 0.45 - 0.08 * b, 0.70 - 0.70 * b] for b in BETAS]
for shape, color in zip(bells, shades, strict=True):
    left.plot(grid, bell(shape).softmax(-1), color=color, linewidth=1.6)
left.set(xlabel="what could be said", ylabel="probability", title="From forward (blue) to reverse (orange)")
for b, shape, color in zip(BETAS, bells, shades, strict=True):
    right.plot(b, float(shape[1].exp()), "o", color=color, markersize=8)
right.set(xlabel="beta", ylabel="width of the student", ylim=(0, None))
ends = [float(shape[1].exp()) for shape in (bells[0], bells[-1])]
show(fig, f"Left: seven bells over the two humps. Right: the width against beta, from {ends[0]:.1f} to {ends[1]:.1f}.",
     title=f"beta from 0 to 1 takes the student's width from {ends[0]:.1f} to {ends[1]:.1f}")

# %% [markdown]
# ## On whose texts?
#
# There is a second choice. Whatever the divergence, it is asked on some text. On people's texts, or the teacher's, the
# student never sees what its *own* slips lead to; when it writes, one slip follows another. **On-policy** distillation
# lets the student write and asks the teacher what it thinks of each token of that.
#
# Now all of them beside each other: the same beginner, then as many tokens of each kind, each at the best of three
# rates, three seeds. Who writes well, and who still has something to say? *Well*: the teacher itself reads 256 texts of
# the student (nats a letter; less is better). *Variety*: the student's own entropy a letter. On the right the loss on
# people's texts, and the key to the colors; the stars are the teacher itself. The open squares are a control: the
# student of the text alone, which only writes at temperature 0.8. Whoever wants less variety can have it without any
# teacher; what does a teacher add?
#
# The sentence to test: "distillation is done on the data side, by the output of the strongest model". Fixed before the
# run: *imprecise* if a student that reads the same letters as before, with the teacher's logits in place of the labels,
# surely gets better on people's texts than one that goes on alone; *correct* if it doesn't, and the teacher's texts
# surely make the student write what the teacher likes better; else *unverifiable*.

# %% claim="A05.3"
kinds = evidence("A05.3")
KEYS = {"text alone": ("text alone", "s", 0), "word by word": ("word by word", "o", 1),
        "word by word, reversed": ("word by word,\nreversed", "o", 2), "teacher's texts": ("teacher's texts", "^", 3),
        "teacher's texts, T = 0.5": ("teacher's texts,\nT = 0.5", "^", 4),
        "own texts, forward KL": ("own texts,\nforward KL", "D", 5),
        "own texts, reverse KL": ("own texts,\nreverse KL", "D", 6)}
ARMS, COOL = list(KEYS), "text alone, T = 0.8"
logits_help = kinds.interval("text alone", "loss", minus="word by word")
texts_help = kinds.interval("text alone", "disliked", minus="teacher's texts")
word = "imprecise" if logits_help.above(0) else "correct" if texts_help.above(0) else "unverifiable"

fig, (left, right) = figure(1, 2, width=10.5, height=4.4, width_ratios=[1.6, 1])
for arm, (_, mark, i) in KEYS.items():
    left.plot(kinds.each(arm, "entropy"), kinds.each(arm, "disliked"), mark, color=COLORS[i], markersize=7, alpha=0.75)
cool = kinds.each(COOL, "entropy"), kinds.each(COOL, "disliked")
left.plot(*cool, "s", color=COLORS[0], markersize=7, fillstyle="none")
for arm, color in (("teacher", "#888888"), ("teacher, T = 0.5", "#bbbbbb")):
    left.plot(kinds.each(arm, "entropy"), kinds.each(arm, "disliked"), "*", color=color, markersize=10)
    left.annotate(f"{arm}", (kinds.interval(arm, "entropy").mean, kinds.interval(arm, "disliked").mean),
                  xytext=(6, -11), textcoords="offset points", fontsize=9, color="#555555")
left.set(xlabel="variety: entropy of the writer, nats a letter", ylabel="how the teacher dislikes it,\nnats a letter")
for arm, (_, mark, i) in KEYS.items():
    losses = kinds.each(arm, "loss")
    right.plot(losses, [i] * len(losses), mark, color=COLORS[i], markersize=7, alpha=0.75)
right.set_yticks(range(len(ARMS)), [name for name, _, _ in KEYS.values()], fontsize=9)
right.set(xlabel="loss on people's texts, nats a letter", ylim=(len(ARMS) - 0.5, -0.5))
NUMBERS = ("entropy", "disliked", "loss")
mean_of = {number: {arm: kinds.interval(arm, number).mean for arm in ARMS} for number in NUMBERS}
least, most = (choose(mean_of["entropy"], key=mean_of["entropy"].get) for choose in (min, max))
alike = float(torch.corrcoef(torch.stack([torch.tensor(list(mean_of[number].values())).argsort().argsort().float()
                                          for number in ("entropy", "disliked")]))[0, 1])
liked = min(mean_of["disliked"], key=mean_of["disliked"].get)
show(fig, "Left: dislike against entropy, three dots a kind. Right: loss on people's texts. " + "; ".join(
    f"{arm}: entropy {mean_of['entropy'][arm]:.2f}, dislike {mean_of['disliked'][arm]:.2f}, loss "
    f"{mean_of['loss'][arm]:.2f}" for arm in ARMS) + ".",
     title=f"{'The less varied, the better liked' if alike > 0.8 else 'Variety and liking go their own ways'} "
           f"(rank correlation {alike:.2f}): from “{least}” to “{most}”")
print(at_the_ends(kinds, ARMS, 0.01, 0.06))
print(kinds.again())
verdict("A05.3", word, f"Same letters, logits for labels: {logits_help.text('+.2f')} nats a letter better on "
        f"people's texts. The teacher's texts: its dislike falls by {texts_help.text('+.2f')} nats. Liked best: "
        f"“{liked}”. The student of the text alone, sampled at T = 0.8: entropy "
        f"{kinds.interval(COOL, 'entropy').mean:.2f}, dislike {kinds.interval(COOL, 'disliked').mean:.2f}.")

# %% [markdown]
# Each kind of distillation is a place in this plane.
#
# ### What variety is good for
#
# For a chat model, or for mathematics, one good answer may be all you want. For writing, for search, or where the
# student will later be trained by rewards and has to *explore*, variety that was given up will be missed. A table that
# shows the quality of one answer for each question can't see it.
#
# ## One token is enough
#
# Reverse KL on own texts needs the teacher's whole distribution at every token. In 2026 a common form asks for one
# number instead: how likely would *you* have found the token that I said? With $x$ drawn from the student $q_\theta$,
#
# $$\nabla_\theta\, \mathrm{KL}(q_\theta \,\|\, p) = -\,\mathbb{E}_{x \sim q_\theta}\Big[\underbrace{\big(\log p(x) -
# \log q_\theta(x)\big)}_{\text{advantage, a constant}} \nabla_\theta \log q_\theta(x)\Big].$$
#
# That is a policy gradient with a reward at every token, and any trainer for reinforcement learning can do it (Thinking
# Machines Lab 2025, [On-Policy Distillation](https://thinkingmachines.ai/blog/on-policy-distillation/)). Each token
# answers for itself alone: what it does to the later ones, a part of the whole text's divergence, is left out. In code
# it is a "loss" whose value says little; its *gradient* is what counts.
#
# ### Exercise 6: the on-policy loss

# %% exercise="on_policy_loss"
def on_policy_loss(student, teacher, tokens, mask):
    """A loss whose gradient estimates that of reverse KL, from tokens that the student drew.

    student: float32 or float64 logits [..., n, classes], finite; some may be in the hundreds
    teacher: logits of the same shape and dtype, for the same texts. No gradient flows to them.
    tokens:  int64 [..., n]: what was drawn from student, class by class; tokens[i] was drawn
             from student[i], so nothing is to be shifted
    mask:    bool [..., n]: True where a token counts. At least one does.

    With log q(x) and log p(x), the log-probabilities that student and teacher give to the token
    x, a token costs -(log p(x) - log q(x)) * log q(x). The bracket, the advantage, is a
    constant to autograd: gradients flow to student through the last factor alone.
    Returns the mean over all tokens that count, of the whole batch together: a tensor of no
    dimension and of student's dtype.
    """
    ### BEGIN SOLUTION
    s, t, said = student[mask], teacher[mask], tokens[mask][:, None]
    log_q = s.log_softmax(-1).gather(-1, said)[:, 0]
    log_p = t.log_softmax(-1).gather(-1, said)[:, 0]
    advantage = (log_p - log_q).detach()
    return -(advantage * log_q).mean()
    ### END SOLUTION


# %% check="on_policy_loss"
check(on_policy_loss)

# %% [markdown]
# Is it really the gradient of reverse KL, and how many tokens does it take? One position with eight classes, where the
# exact gradient is known:

# %% tags=["payoff"]
dice = torch.Generator().manual_seed(1)
mine, theirs = torch.randn(2, 8, generator=dice) * 1.5
leaf = mine.clone().requires_grad_()
kl(leaf, theirs).backward()
exact, errors = leaf.grad, {}
SIZES = [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000]
for n in SIZES:
    errors[n] = []
    for _ in range(12):
        drawn_tokens = torch.multinomial(mine.softmax(-1), n, replacement=True, generator=dice)
        leaf = mine.clone().requires_grad_()
        every = torch.ones(n, dtype=torch.bool)
        on_policy_loss(leaf.expand(n, -1), theirs.expand(n, -1), drawn_tokens, every).backward()
        errors[n].append(float((leaf.grad - exact).norm() / exact.norm()))
fig, ax = figure(width=8.4, height=3.2)
ax.plot(SIZES, [sum(each) / len(each) for each in errors.values()], color=COLORS[0], marker="o", label="your loss")
for n, each in errors.items():
    ax.plot([n] * len(each), each, "o", color=COLORS[0], markersize=3, alpha=0.35)
first_error = sum(errors[10]) / len(errors[10])
ax.plot(SIZES, [first_error * (10 / n) ** 0.5 for n in SIZES], color="black", linestyle=":", label="1 / √n")
ax.set(xscale="log", yscale="log", xlabel="tokens drawn, n", ylabel="error of the gradient,\nin units of its length")
ax.legend()
at = {n: sum(errors[n]) / len(errors[n]) for n in (100, 10_000)}
show(fig, f"Error of the estimated gradient against the number of tokens: {at[100]:.0%} with 100, {at[10_000]:.1%} "
          "with 10,000.",
     title=f"100 tokens estimate the gradient of reverse KL to {at[100]:.0%}, 10,000 to {at[10_000]:.1%}")

# %% [markdown]
# ## Distillation in 2026
#
# **Who does it.** Small models of a family learn from the large one as a matter of course: Gemma 2 in pretraining,
# Qwen3 after it (2025, [arXiv:2505.09388](https://arxiv.org/abs/2505.09388)), first on the teacher's texts and then
# on-policy. Minitron cuts neurons, heads and layers out of a model and heals the rest by distillation (2024,
# [arXiv:2407.14679](https://arxiv.org/abs/2407.14679)): pruning and distillation are one recipe.
#
# **What it needs.** Logits ask for the *same tokenizer* in both, or a method that gets around it; text doesn't. Terms
# of use of many services forbid training a competitor on their output. And a student learns the teacher's errors and
# its tone along with the rest; filter by what can be verified, where anything can.
#
# **What to report.** The same student alone, for the same tokens and for the same compute, with the teacher's share in
# the bill; speed where it will be served; and the variety of what it writes.
#
# ## What to remember
#
# * Soft targets carry what a label can't: how alike the wrong answers are. $T$ softens, and $T^2$ is to make up for its
#   gradient: look at both panels.
# * `F.kl_div`: log-probabilities of the student, then the teacher; `batchmean` over rows that are tokens; teacher
#   detached; padding in neither part.
# * Three places to learn from: people's texts with logits, the teacher's texts, the student's own texts.
# * Forward KL covers, reverse KL chooses.
# * What a teacher is worth depends on your text and your compute. Ask what the student would have become alone.
#
# **Sources.** Hinton, Vinyals and Dean 2015, [arXiv:1503.02531](https://arxiv.org/abs/1503.02531); Kim and Rush 2016,
# [arXiv:1606.07947](https://arxiv.org/abs/1606.07947); Sanh et al. 2019,
# [arXiv:1910.01108](https://arxiv.org/abs/1910.01108), tables 1 and 3; Jiao et al. 2020,
# [arXiv:1909.10351](https://arxiv.org/abs/1909.10351); Mirzadeh et al. 2020,
# [arXiv:1902.03393](https://arxiv.org/abs/1902.03393); Agarwal et al. 2024,
# [arXiv:2306.13649](https://arxiv.org/abs/2306.13649); Gemma 2, 2024,
# [arXiv:2408.00118](https://arxiv.org/abs/2408.00118); Minitron, 2024,
# [arXiv:2407.14679](https://arxiv.org/abs/2407.14679); Busbridge et al. 2025,
# [arXiv:2502.08606](https://arxiv.org/abs/2502.08606); DeepSeek-R1, 2025,
# [arXiv:2501.12948](https://arxiv.org/abs/2501.12948); Qwen3, 2025,
# [arXiv:2505.09388](https://arxiv.org/abs/2505.09388); Thinking Machines Lab 2025,
# [On-Policy Distillation](https://thinkingmachines.ai/blog/on-policy-distillation/).
