# ---
# jupyter:
#   course:
#     title: "Forgetting: learn the new, keep the old"
#     exercises: applications.forgetting
#     questions: [A10]
#     needs: [02_applications/08_finetuning]
# ---

# %% [markdown]
# # Forgetting: learn the new, keep the old
#
# You fine-tune a model on your own data, and it may get bad at things that you never touched. Nobody told it to forget,
# and nobody told it not to: the new loss says nothing about the old task. This is **catastrophic forgetting**
# (灾难性遗忘), described by McCloskey and Cohen in 1989.
#
# The interview question: **fine-tuning lowers general ability: what can be done?** The usual answer is a list: distil,
# freeze, regularize, unfreeze step by step, mix the tasks. Here you build each cure, and each sentence of the list is
# put to a test in which it may fail. Two numbers are always looked at together: what is kept, and what is learned.

# %% tags=["setup"]
import copy

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, evidence, figure, give_back, interval, show, smollm, verdict

# %% [markdown]
# ## What becomes of the old task?
#
# A small network has learned to read digits. Now it learns to read them turned by 90 degrees, from pictures of turned
# digits alone. Nothing in the pictures forbids reading both kinds, and exercise 7 asks whether one network can.

# %% tags=["demo"]
torch.set_num_threads(1)  # the networks are small: a second thread would wait more than it works

from experiments.forgetting import digits, judged, learn, old_self, task

LOOKS = [0, 2, 5, 10, 20, 40, 80, 150]
before = old_self(0)  # three layers, 64 units wide, ten outputs
seen = [judged(learn(before, lambda net, dice: task(net, 0, dice), 3e-3, steps), "test", 0) for steps in LOOKS]

upright, turned, shown = digits("test", 0)
fig, axes = figure(1, 3, width=10.5, height=3, width_ratios=[1, 1, 4])
for ax, pictures, name in zip(axes, (upright, turned), ("old task", "new task"), strict=False):
    framed = F.pad(pictures[:4].reshape(4, 8, 8), (1, 1, 1, 1), value=0.25).reshape(2, 2, 10, 10)
    ax.imshow(framed.transpose(1, 2).reshape(20, 20), cmap="Greys")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(name)
for name, label, color, mark in (("old", "upright digits", COLORS[0], "o"), ("new", "turned digits", COLORS[1], "s")):
    axes[2].plot(LOOKS, [100 * look[name] for look in seen], color=color, marker=mark, label=label)
axes[2].set(xlabel="steps on turned digits alone", ylabel="read right, %", ylim=(0, 100))
axes[2].legend(loc="center right")
first, last = seen[0], seen[-1]
show(fig, alt=f"Left: digits, upright and turned. Right: accuracy over {LOOKS[-1]} steps. Upright digits go from "
     f"{first['old']:.0%} to {last['old']:.0%}, turned ones from {first['new']:.0%} to {last['new']:.0%}.",
     title=f"{LOOKS[-1]} steps: turned digits {first['new']:.0%} → {last['new']:.0%}, upright ones "
           f"{first['old']:.0%} → {last['old']:.0%}")

# %% [markdown]
# ## Exercise 1: freeze
#
# The plainest cure: what isn't trained can't change. **Freeze** the lower layers, tune the upper ones. In torch that is
# a flag, `requires_grad`, and three traps around it:
#
# * names: "layers.1" is also the beginning of "layers.10";
# * **tied** parameters: in many language models head and embedding are one matrix under two names;
# * what isn't a parameter: the running statistics of BatchNorm move in train mode, frozen or not.


# %% exercise="freeze_layers"
def freeze_layers(model, trained):
    """Leave only some submodules of a model trainable, and freeze all the rest.

    model:   torch.nn.Module, changed in place: flags and modes, no values
    trained: list of dotted names of submodules, as in model.named_modules(): ["layers.1",
             "head"]. "layers.1" doesn't mean "layers.10"; "" is the whole model; [] is nothing.
    A parameter is trainable (requires_grad is True) if it belongs to a named submodule or lies
    anywhere inside of one, also where it was frozen before; all others are frozen
    (requires_grad is False). A parameter that is shared by two modules (tied) is trainable if
    one of the two is named. Named submodules, with all that is inside, are in train mode, all
    others in eval mode, so that frozen running statistics stand still.

    Returns a list (or tuple) of the trainable parameters, each once, in the order of
    model.parameters(): what the optimizer gets. Raises AttributeError for a name that isn't
    there, as model.get_submodule does.
    """
    ### BEGIN SOLUTION
    parts = [model.get_submodule(name) for name in trained]
    model.requires_grad_(False).eval()
    for part in parts:
        part.requires_grad_(True).train()
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
    ### END SOLUTION


# %% check="freeze_layers"
check(freeze_layers)

# %% [markdown]
# On a real chat model of 135 million parameters. Its head and its embedding are tied: watch the last two lines.

# %% tags=["payoff"]
model, _ = smollm()
for names in (["model.layers.29"], ["model.layers"], ["lm_head"], ["model.embed_tokens"]):
    count = sum(parameter.numel() for parameter in freeze_layers(model, names))
    print(f"{names[0]:20} {count:>12,} parameters are trained")
model = model.requires_grad_(True).eval()

# %% [markdown]
# (A training loop that calls `model.train()` afterwards undoes the modes. Many do, once an epoch.)
#
# ## "Freeze the lower layers, tune only the top"
#
# Eight seeds: each with other splits, other initial weights, other batches; always 150 steps. Every way of training has
# its own learning rate, the best of a few on validation digits of both tasks; what is shown are test digits. A line
# below says which ways chose the smallest or the largest rate that was tried: beyond it they may do better. A dot is a
# seed, a bar the 95 % interval of the mean.
#
# The new task comes in two kinds. With **shared outputs** a turned 3 has the same output as an upright one. With
# **outputs of its own** the network is given ten more, and is told which task a picture belongs to.
#
# A cure **helps** if the mean of both accuracies is *surely* higher than without it: the 95 % interval of the
# difference, seed by seed, lies above 0. Keeping alone is no art: a network that isn't trained keeps everything.
#
# **Before the run:** the sentence is *correct* if tuning the top layer alone helps with shared outputs and with outputs
# of its own. It is *imprecise* if it helps in one of the two, *wrong* if in neither. As a positive control, old
# examples in the batch must help.

# %% tags=["demo"]
from experiments.forgetting import RATES, points


def rows(found, arms, marked=()):
    """One row an arm: the old and the new task, a dot a seed, a bar for the interval. Gives the figure."""
    fig, axes = figure(1, 2, width=10.5, height=0.8 + 0.36 * len(arms), sharey=True)
    for ax, number, name in zip(axes, ("old", "new"), ("old task", "new task"), strict=True):
        for row, arm in enumerate(arms):
            color = COLORS[1] if arm in marked else COLORS[0]
            each = found.interval(arm, number)
            ax.plot([100 * each.low, 100 * each.high], [row] * 2, color=color, linewidth=8, alpha=0.3)
            ax.plot([100 * x for x in found.each(arm, number)], [row] * each.n, "o", color=color, markersize=3.5)
        ax.set(xlim=(0, 100), ylim=(len(arms) - 0.5, -0.5), xlabel=f"{name}: read right, %")
        ax.grid(axis="x")
    axes[0].set_yticks(range(len(arms)), arms)
    return fig


def at_the_edge(found, arms, rates):
    """Of which arms most seeds chose the smallest of the rates that were tried, or the largest, in a sentence."""
    def those(edge):
        return "; ".join(arm for arm in arms if sum(rate == edge for rate in found.each(arm, "rate")) > 4) or "none"

    return (f"{len(rates)} rates were tried. The smallest, {min(rates):g}, was the choice of most seeds of: "
            f"{those(min(rates))}. The largest, {max(rates):g}: {those(max(rates))}.")


def told(found, arms):
    """What the arms read, old and new, for an alternative text."""
    each = [(arm, *(100 * found.interval(arm, number).mean for number in ("old", "new"))) for arm in arms]
    return "; ".join(f"{arm} {old:.0f} % of the old, {new:.0f} % of the new" for arm, old, new in each)


# %% claim="A10.2"
from experiments.A10_2 import _HIGH, ALL, BEFORE, BOTTOM, OWN_ALL, OWN_TOP, TOP, UPPER

frozen = evidence("A10.2")
print(frozen.again())
arms = [BEFORE, ALL, UPPER, TOP, BOTTOM, OWN_ALL, OWN_TOP]
gain = {"shared": points(frozen, TOP, "both", ALL), "own": points(frozen, OWN_TOP, "both", OWN_ALL)}
show(rows(frozen, arms, marked=(TOP, OWN_TOP)),
     alt=f"A row for each way of training, a dot a seed: {told(frozen, arms)}.",
     title=f"Tuning the top alone, mean of both tasks: {gain['shared'].mean:+.0f} points with shared outputs, "
           f"{gain['own'].mean:+.0f} with outputs of its own")
verdict(
    "A10.2",
    {2: "correct", 1: "imprecise", 0: "wrong"}[sum(each.above(0) for each in gain.values())],
    "Top layer alone against all layers, mean of both accuracies, in points (95 %): "
    + ", ".join(f"{name} outputs {each.text('+.0f')}" for name, each in gain.items())
    + ". The control, old examples in the batch: "
    + points(frozen, "all layers, replay of 100", "both", ALL).text("+.0f")
    + ".",
)
print(at_the_edge(frozen, arms, (*RATES, *_HIGH)))

# %% [markdown]
# Frozen layers protect what *they* compute. The old task's answer also goes through the layers above, and if these are
# trained, nothing holds them. With outputs of its own, and all else frozen, the old answer can't change: that is a
# theorem, and it is how **adapters** and LoRA that can be switched off keep a model whole.
#
# ## Exercise 2: thaw step by step
#
# Howard and Ruder (ULMFiT, 2018) begin with the top layer and **unfreeze** one more after each stage. What lies deeper
# also gets a smaller rate: with the top at rate $\eta$, a layer $d$ below it learns with
#
# $$\eta_d = \eta \,/\, 2.6^{\,d}.$$


# %% exercise="gradual_unfreeze"
def gradual_unfreeze(groups, step, every, rate, decay=2.6):
    """The learning rate of each group of layers at a step of training, frozen ones at 0.

    groups: int >= 1, how many groups of layers there are; group 0 is the lowest, the last one
            the top
    step:   int >= 0, the step that comes now
    every:  int >= 1: the top group alone is trained in steps 0 to every - 1, the top two from
            step `every` on, the top three from 2 * every on, and so forth until all are. What
            has been unfrozen stays so.
    rate:   float > 0, the rate of the top group, the same at every step
    decay:  float >= 1: a trained group d groups below the top has rate / decay**d

    Returns a list of `groups` Python floats, group 0 first: the rates; 0.0 for a group that is
    still frozen.

    Howard and Ruder 2018, arXiv:1801.06146.
    """
    ### BEGIN SOLUTION
    trained = 1 + step // every
    below = [groups - 1 - group for group in range(groups)]
    return [rate / decay**d if d < trained else 0.0 for d in below]
    ### END SOLUTION


# %% check="gradual_unfreeze"
check(gradual_unfreeze)

# %% tags=["payoff"]
steps = range(150)
plan = torch.tensor([gradual_unfreeze(5, step, 30, 0.01) for step in steps])
fig, ax = figure(width=9, height=2.8)
for group, color in zip(reversed(range(5)), COLORS, strict=False):
    ax.plot(steps, plan[:, group].masked_fill(plan[:, group] == 0, torch.nan), color=color, label=f"group {group}")
ax.set(yscale="log", xlabel="step", ylabel="learning rate")
ax.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.25))
show(fig, alt="Learning rates of five groups over 150 steps, each beginning when it thaws; the last rates are "
     + ", ".join(f"{r:.2g}" for r in plan[-1].tolist()) + ".")

# %% [markdown]
# ## "Step by step, it doesn't forget at once"
#
# The authors of ULMFiT warn of catastrophic forgetting, too. What they measure, though, is the *new* task: forgetting
# harms it, since the new task wants to use what was there. Their output layer is new and random, and if all layers are
# trained at once, its first, random gradients run through the whole network. We measure the old task as well, in both
# kinds; also with the smaller rates below, but without waiting.
#
# **Before the run:** *correct* if gradual unfreezing helps with shared outputs and with outputs of its own (again: the
# mean of both accuracies is surely higher than all at once). *Imprecise* if in one of the two, *wrong* if in neither.

# %% claim="A10.4"
from experiments.A10_4 import _RATES, AT_ONCE, GRADUAL, OWN_AT_ONCE, OWN_GRADUAL, RATES_ALONE

thawed = evidence("A10.4")
print(thawed.again())
arms = [BEFORE, AT_ONCE, RATES_ALONE, GRADUAL, OWN_AT_ONCE, OWN_GRADUAL]
gain = {"shared": points(thawed, GRADUAL, "both", AT_ONCE), "own": points(thawed, OWN_GRADUAL, "both", OWN_AT_ONCE)}
show(rows(thawed, arms, marked=(GRADUAL, OWN_GRADUAL)),
     alt=f"A row for each way of training, a dot a seed: {told(thawed, arms)}.",
     title=f"Gradual unfreezing, mean of both tasks: {gain['shared'].mean:+.0f} points with shared outputs, "
           f"{gain['own'].mean:+.0f} with outputs of its own")
verdict(
    "A10.4",
    {2: "correct", 1: "imprecise", 0: "wrong"}[sum(each.above(0) for each in gain.values())],
    "Gradual against all at once, mean of both accuracies, in points (95 %): "
    + ", ".join(f"{name} outputs {each.text('+.0f')}" for name, each in gain.items())
    + ". The control, old examples in the batch: "
    + points(thawed, "all at once, replay of 100", "both", AT_ONCE).text("+.0f")
    + ".",
)
print(at_the_edge(thawed, arms, _RATES))

# %% [markdown]
# ## Exercise 3: a pull to where you started
#
# Regularization usually means **weight decay**, a pull to zero. But what the model knew isn't at zero: it is at the
# weights $\theta^0$ that it started from. So pull there, and only what is *new* (a fresh head) to zero. That is
# **L2-SP**, for *starting point* (Li, Grandvalet and Davoine 2018):
#
# $$\Omega(\theta) = \frac{\alpha}{2} \sum_{\text{known}} \lVert \theta - \theta^0 \rVert^2
# + \frac{\beta}{2} \sum_{\text{new}} \lVert \theta \rVert^2$$


# %% exercise="l2_sp_penalty"
def l2_sp_penalty(params, start, strength=0.1, new_strength=0.01):
    """Pull weights towards where they started, and those that are new towards zero.

    params:       dict from names to floating-point tensors: the weights now
    start:        dict from names to tensors: the weights before. The order of the names may be
                  another one. A tensor of the same name has the same shape and dtype; names
                  that params doesn't have are ignored (an old head that is gone).
    strength:     a number >= 0 (α), for parameters whose name stands in start
    new_strength: a number >= 0 (β), for all others

    Returns a 0-dim tensor: strength / 2 times the sum of (params[name] - start[name])² over
    all weights with a start, plus new_strength / 2 times the sum of the squares of all others.
    Differences, squares and sums are computed in float32, also for bfloat16, and the result is
    float32; for float64 all of it is float64. Subtract before you square. Differentiable:
    gradients flow to params; the start is fixed, and none reaches it.

    Li, Grandvalet and Davoine 2018, arXiv:1802.01483.
    """
    ### BEGIN SOLUTION
    def wide(x):
        return x if x.dtype == torch.float64 else x.float()

    total = torch.zeros(())
    for name, weight in params.items():
        if name in start:
            moved = wide(weight) - wide(start[name].detach())
            total = total + strength / 2 * moved.square().sum()
        else:
            total = total + new_strength / 2 * wide(weight).square().sum()
    return total
    ### END SOLUTION


# %% check="l2_sp_penalty"
check(l2_sp_penalty)

# %% [markdown]
# In the loop it is one more term of the loss. Your penalty at four strengths, one seed, one learning rate:

# %% tags=["payoff"]
from experiments.forgetting import state

start = state(before)  # {name: weights of the old self}


def pulled_back(penalty):
    """What is read of both tasks after 150 steps on the new one, with a penalty on the parameters."""
    def loss(net, dice):
        return task(net, 0, dice) + penalty(dict(net.named_parameters()))

    return judged(learn(before, loss, 3e-3), "test", 0)


for strength in (0.0, 0.01, 0.1, 1.0):
    reads = pulled_back(lambda params, s=strength: l2_sp_penalty(params, start, s))
    print(f"strength {strength:<5} old {reads['old']:.0%}  new {reads['new']:.0%}")

# %% [markdown]
# ## Exercise 4: which weights matter?
#
# L2-SP holds every weight alike. But the old task doesn't need all of them: some may move far, and its answers hardly
# change. How much they change is what the **Fisher information** measures, here its diagonal:
#
# $$F_k = \frac{1}{n} \sum_x \sum_c p(c \mid x) \left( \frac{\partial \log p(c \mid x)}{\partial \theta_k} \right)^2$$
#
# Two things go wrong in many codes. The square is of *each example's* gradient, not of a batch's mean, in which
# gradients cancel. And the classes are weighed by the *model's own* probabilities; with the labels of the data instead
# it is another quantity, the "empirical Fisher".


# %% exercise="fisher_diagonal"
def fisher_diagonal(model, x):
    """How much each weight of a classifier matters for what it says about x.

    model: torch.nn.Module that turns float tensors [n, features] into logits [n, classes];
           every row is treated by itself. It is used in the mode that it is in.
    x:     tensor [n, features] of the parameters' dtype (float32 or float64), n >= 1
    For each weight: the mean over the n examples of the sum over all classes c of p(c) times
    the square of the gradient of log p(c), where p = softmax(logits) of that example alone.

    Returns a dict from the names of model.named_parameters() to new tensors of the parameter's
    shape and dtype, cut off from the graph; all parameters with requires_grad are in it (one that
    no logit depends on with zeros), and no other. The model stays as it is: its flags, its mode,
    and the .grad of its parameters.

    Kirkpatrick et al. 2017, arXiv:1612.00796.
    """
    ### BEGIN SOLUTION
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for row in x:
        log_p = model(row[None]).log_softmax(-1)[0]
        for value in log_p:
            found = torch.autograd.grad(
                value, list(params.values()), retain_graph=True, materialize_grads=True
            )
            for name, gradient in zip(params, found, strict=True):
                total[name] += value.detach().exp() * gradient.square() / len(x)
    return total
    ### END SOLUTION


# %% check="fisher_diagonal"
check(fisher_diagonal)

# %% [markdown]
# At which pixels do the weights of the first layer matter most? And how unequal are weights in this?

# %% tags=["payoff"]
matters = fisher_diagonal(before, digits("old", 0)[0][:100])
pixels = matters["0.weight"].sum(0).reshape(8, 8)
flat = torch.cat([f.flatten() for f in matters.values()]).sort(descending=True).values
held = flat.cumsum(0) / flat.sum()
tenth = float(held[len(held) // 10])
fig, (left, middle, right) = figure(1, 3, width=10.5, height=3, width_ratios=[1, 1, 2])
left.imshow(digits("old", 0)[0].mean(0).reshape(8, 8), cmap="Greys")
middle.imshow(pixels, cmap="cividis")
for ax, name in ((left, "the mean digit"), (middle, "Fisher, by pixel")):
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(name)
right.plot(torch.linspace(0, 100, len(held)), 100 * held, color=COLORS[0])
right.set(xlabel="weights, those that matter first, %", ylabel="of all Fisher\ninformation, %", ylim=(0, 102))
show(fig, alt=f"Left: the mean digit. Middle: Fisher information of the first layer by pixel; the corner has "
     f"{float(pixels[0, 0]):.2g}, the center {float(pixels[3:5, 3:5].mean()):.2g}. Right: a tenth of the weights "
     f"holds {tenth:.0%}.", title=f"A tenth of the weights holds {tenth:.0%} of the Fisher information")

# %% [markdown]
# ## Exercise 5: elastic weight consolidation
#
# **EWC** (Kirkpatrick et al. 2017) pulls every weight to its start with the strength that the old task gives it:
#
# $$\Omega(\theta) = \frac{\lambda}{2} \sum_k F_k \, (\theta_k - \theta^0_k)^2$$
#
# Read it as a Taylor expansion: near the start, the KL divergence between the old self and the new one *is* about
# $\frac12 \sum_{kl} F_{kl}\, \Delta_k \Delta_l$, and EWC keeps the diagonal.


# %% exercise="ewc_penalty"
def ewc_penalty(params, start, fisher, strength=1.0):
    """Pull each weight towards where it started, as hard as the old task needs it.

    params:   dict from names to floating-point tensors: the weights now
    start:    dict from names to tensors of the same shape and dtype: the weights before
    fisher:   dict from names to tensors of the same shape and dtype, all >= 0. Its names
              stand in params and in start; each dict may have an order of its own.
    strength: a number >= 0 (λ)

    Returns a 0-dim tensor: strength / 2 times the sum over all names in fisher, and over all
    weights there, of fisher * (params - start)². Names that fisher doesn't have count nothing.
    Differences, squares and sums are computed in float32, also for bfloat16, and the result is
    float32; for float64 all of it is float64. Subtract before you square. Differentiable:
    gradients flow to params; start and fisher are fixed, and none reaches them.

    Kirkpatrick et al. 2017, arXiv:1612.00796.
    """
    ### BEGIN SOLUTION
    def wide(x):
        return x if x.dtype == torch.float64 else x.float()

    total = torch.zeros(())
    for name, much in fisher.items():
        moved = wide(params[name]) - wide(start[name].detach())
        total = total + (wide(much.detach()) * moved.square()).sum()
    return strength / 2 * total
    ### END SOLUTION


# %% check="ewc_penalty"
check(ewc_penalty)

# %% [markdown]
# Both penalties, each over its own range of strengths, one seed, one learning rate: is there a strength that keeps the
# old *and* learns the new? (The best one is read off test digits here, which flatters a little. The experiment below
# chooses on validation digits.)

# %% tags=["payoff"]
ranges = {"L2-SP": (0.01, 0.03, 0.1, 0.3, 1.0), "EWC": (10.0, 30.0, 100.0, 300.0, 1000.0)}
fig, ax = figure(width=7.5, height=3.6)
found = {}
for (name, strengths), color, mark in zip(ranges.items(), (COLORS[1], COLORS[0]), "so", strict=True):
    found[name] = []
    for s in strengths:
        if name == "EWC":
            found[name].append(pulled_back(lambda params, s=s: ewc_penalty(params, start, matters, s)))
        else:
            found[name].append(pulled_back(lambda params, s=s: l2_sp_penalty(params, start, s)))
    ax.plot([100 * r["new"] for r in found[name]], [100 * r["old"] for r in found[name]], color=color, marker=mark,
            label=f"{name}, strength {strengths[0]:g} to {strengths[-1]:g}")
ax.plot(100 * last["new"], 100 * last["old"], "x", color=COLORS[6], markersize=9, label="no penalty")
ax.set(xlabel="new task: read right, %", ylabel="old task: read right, %", xlim=(0, 100), ylim=(0, 100))
ax.legend(loc="lower left")
top = {name: max(each, key=lambda r: r["both"]) for name, each in found.items()}
best_of = ", ".join(f"{name} {r['old']:.0%} and {r['new']:.0%}" for name, r in top.items())
show(fig, alt=f"Old against new accuracy along two curves. At its best strength, old and new: {best_of}.",
     title=f"Old and new at the best strength: {best_of}")

# %% [markdown]
# ## "Use regularization"
#
# The notes say: regularization reduces overfitting, controls the model's complexity, and keeps generality. That
# describes a pull to zero. Eight seeds; every penalty has its own strength, the best of three, and rate, the better of
# two, on validation digits. (A strength below the smallest that was tried comes near to no penalty, which has a row of
# its own.)
#
# Controls: replay must help, a pull to *another* network's random start must not. And EWC with its Fisher numbers
# **shuffled** within each tensor says whether it matters *which* weights are held.
#
# **Before the run:** *correct* if a pull to zero helps. *Imprecise* if it doesn't, but a pull to the start does, by
# L2-SP or by EWC. *Wrong* if none of them helps.

# %% claim="A10.3"
from experiments.A10_3 import ALONE, DECAY, ELSEWHERE, EWC, MEAN, REPLAY, SHUFFLED, TO_START

held_back = evidence("A10.3")
print(held_back.again())
arms = [BEFORE, ALONE, DECAY, TO_START, EWC, SHUFFLED, ELSEWHERE, MEAN, REPLAY]
gain = {arm: points(held_back, arm, "both", ALONE) for arm in arms[2:]}
show(rows(held_back, arms, marked=(DECAY, TO_START, EWC)),
     alt=f"A row for each penalty, a dot a seed: {told(held_back, arms)}.",
     title="Mean of both tasks, against no penalty: " + ", ".join(
         f"{arm} {gain[arm].mean:+.1f}" for arm in (DECAY, TO_START, EWC)))
from_start = gain[TO_START].above(0) or gain[EWC].above(0)
word = "correct" if gain[DECAY].above(0) else "imprecise" if from_start else "wrong"
verdict("A10.3", word, "Against no penalty, mean of both accuracies, in points (95 %): "
        + ", ".join(f"{arm} {gain[arm].text('+.1f')}" for arm in (DECAY, TO_START, EWC, SHUFFLED, ELSEWHERE, REPLAY))
        + ".")
print(at_the_edge(held_back, arms, RATES))

# %% [markdown]
# ## Exercise 6: your old self as a teacher
#
# A penalty on weights guesses what will happen to the answers. One can also hold the *answers*: keep the old model,
# and ask it. **Learning without Forgetting** (Li and Hoiem 2016) distils from the old self while the new labels are
# learned; new classes come behind the old ones. With $z$ the *logits*, the scores before the softmax, a temperature $T$
# that evens them out, and a strength $s$:
#
# $$L = \underbrace{\text{CE}(y, z)}_{\text{labels}} + \; s\, T^2\,
# \text{KL}\big(\operatorname{softmax}(z^{\text{old}} / T) \,\Vert\, \operatorname{softmax}(z_{1 \dots k} / T)\big)$$
#
# The second part needs no labels. So any inputs may be added on which the old self has something to say.


# %% exercise="distill_to_old_self"
def distill_to_old_self(logits, old_logits, labels, strength=1.0, temperature=2.0):
    """Learn the labels, and go on saying about the old classes what the model said before.

    logits:      float32 or float64 [n, classes], n >= 1: the model now
    old_logits:  [n, old], of the same dtype: the old self on the same examples, about the
                 first `old` of the classes, old <= classes
    labels:      int64 [n], classes; -100 where an example has no label
    strength:    a number >= 0, temperature: a number > 0
    The loss is task + strength * temperature² * kept, where
    task is the cross-entropy of all classes with the labels, the mean over the examples that
         have one; 0 if none has,
    kept is the mean over *all* n examples of KL(p_old || p_now): p_old the softmax of
         old_logits / temperature, p_now that of the first `old` logits / temperature, so that
         each adds up to 1 over the old classes.

    Returns a 0-dim tensor of the dtype of logits. Logits may be in the hundreds. Gradients flow
    to logits; the old self is fixed, and none reaches it.

    Li and Hoiem 2016, arXiv:1606.09282, with the T² of Hinton et al. 2015, arXiv:1503.02531.
    """
    ### BEGIN SOLUTION
    known = labels != -100
    task = F.cross_entropy(logits[known], labels[known]) if known.any() else logits.sum() * 0
    now = (logits[:, : old_logits.shape[1]] / temperature).log_softmax(-1)
    was = (old_logits.detach() / temperature).log_softmax(-1)
    kept = F.kl_div(now, was, log_target=True, reduction="batchmean")
    return task + strength * temperature**2 * kept
    ### END SOLUTION


# %% check="distill_to_old_self"
check(distill_to_old_self)

# %% [markdown]
# Your loss on three mixtures: turned digits with labels, and beside them upright ones, noise, or nothing, without.

# %% tags=["payoff"]
def distilled(extra, strength=0.3):
    """What is read after 150 steps: each batch has 48 turned digits with labels, and 48 rows of `extra` without."""
    _, x, y = digits("train", 0)

    def loss(net, dice):
        at = torch.randint(len(x), (48,), generator=dice)
        more = torch.randint(len(extra), (48 if len(extra) > 1 else 0,), generator=dice)
        batch = torch.cat([x[at], extra[more]])
        labels = torch.cat([y[at], torch.full((len(more),), -100)])
        with torch.no_grad():
            said = before(batch)
        return distill_to_old_self(net(batch), said, labels, strength)

    return judged(learn(before, loss, 3e-3), "test", 0)


noise = torch.rand(600, 64, generator=torch.Generator().manual_seed(0))
for name, extra in (("nothing", noise[:1]), ("noise", noise), ("upright digits, no labels", digits("old", 0)[0])):
    reads = distilled(extra)
    print(f"beside them {name:26} old {reads['old']:.0%}  new {reads['new']:.0%}")

# %% [markdown]
# The old self also speaks about turned digits here, of which it was never taught anything.
#
# ## "Distillation ensures that nothing is lost"
#
# To *ensure* is a strong word. What fine-tuning has at hand are the new inputs. Can the old self hold the model there
# without contradicting the labels, when the old task lives elsewhere?
#
# In this experiment the old self speaks about 48 further rows a step: new inputs, noise, or any of the 600 old inputs.
# (Replay has 100 old ones, with labels, and no further rows: its batch of 48 holds 12 of them.) Strength and rate are
# again the best on validation digits, of six strengths from 0.03 to 30 and two rates.
#
# **Before the run:** *correct* if, distilling on the new inputs alone, the old accuracy is surely less than five points
# below what it was. *Imprecise* if that isn't so, but distilling on old inputs, without labels, helps. Else *wrong*.
# Controls: replay must help, and an *untrained* self as a teacher must not.

# %% claim="A10.1"
from experiments.A10_1 import ALONE as NEW_ALONE
from experiments.A10_1 import LOST, NOBODY, ON_NEW, ON_NOISE, ON_OLD, OWN, OWN_ALONE
from experiments.A10_1 import REPLAY as REPLAYED

taught = evidence("A10.1")
print(taught.again())
arms = [BEFORE, NEW_ALONE, ON_NEW, ON_NOISE, ON_OLD, NOBODY, REPLAYED, OWN_ALONE, OWN]
lost = points(taught, BEFORE, "old", ON_NEW)
gain = {arm: points(taught, arm, "both", NEW_ALONE) for arm in (ON_NEW, ON_NOISE, ON_OLD, NOBODY, REPLAYED)}
own = points(taught, BEFORE, "old", OWN), points(taught, OWN, "both", OWN_ALONE)
show(rows(taught, arms, marked=(ON_NEW, ON_NOISE, ON_OLD, OWN)),
     alt=f"A row for each teacher and kind of input, a dot a seed: {told(taught, arms)}.",
     title="Mean of both tasks, points more with the old self's opinion on " + ", ".join(
         f"{arm.removeprefix('on ')} {gain[arm].mean:+.0f}" for arm in (ON_NEW, ON_NOISE, ON_OLD)))
verdict(
    "A10.1",
    "correct" if lost.below(LOST) else "imprecise" if gain[ON_OLD].above(0) else "wrong",
    f"Distilling on new inputs loses {lost.text('.0f')} points of the old task, with outputs of its own "
    f"{own[0].text('.0f')}. Mean of both accuracies against none, in points (95 %): "
    + ", ".join(f"{arm} {each.text('+.0f')}" for arm, each in gain.items()) + ".",
)
for arm in (ON_NEW, ON_NOISE, ON_OLD, OWN):
    print(f"Strengths chosen {arm}:", ", ".join(f"{s:g}" for s in sorted(taught.each(arm, "strength"))))
print(at_the_edge(taught, arms, RATES))

# %% [markdown]
# ## Exercise 7: replay
#
# The most direct cure: **go on learning the old**. Multi-task training does so from the start; **replay** (rehearsal)
# mixes into each batch a share of old examples, of which only a few were kept. The book-keeping should be exact: every
# new example once an epoch, and no old one twice before all others have come.


# %% exercise="replay_batches"
def replay_batches(n_new, n_old, batch_size, share, generator):
    """Which examples the batches of one epoch take: all new ones once, and old ones in turn.

    n_new, n_old: ints >= 1, how many new and old examples there are
    batch_size:   int >= 2, the examples in a batch, old ones included
    share:        number from 0 to below 1: each batch has k = round(share * batch_size) old
                  ones (Python's round, a half to the even number; k < batch_size) and
                  batch_size - k new ones. The last batch may have fewer new ones, and still k
                  old ones.
    generator:    torch.Generator, from which all that is random comes, in this order: first
                  torch.randperm(n_new, generator=generator) is the order of the new ones; then,
                  if k > 0, each pass over the old ones is a torch.randperm(n_old,
                  generator=generator). Passes follow each other in one line, as many as are
                  needed; each batch takes the next k of it, also across the end of a pass, and
                  also if k > n_old.

    Returns a list of pairs (new, old) of int64 tensors of indices, counted from 0 in each kind,
    a pair a batch; `old` is empty where k is 0.
    """
    ### BEGIN SOLUTION
    k = round(share * batch_size)
    new = torch.randperm(n_new, generator=generator).split(batch_size - k)
    passes = -(-k * len(new) // n_old)
    line = [torch.randperm(n_old, generator=generator) for _ in range(passes)]
    line = torch.cat([torch.zeros(0, dtype=torch.int64), *line])
    return [(some, line[i * k : i * k + k]) for i, some in enumerate(new)]
    ### END SOLUTION


# %% check="replay_batches"
check(replay_batches)

# %% [markdown]
# How many old examples must one have kept? Your batches, a quarter of each old, eighteen epochs, one learning rate:

# %% tags=["payoff"]
def rehearsed(kept, seed, share=0.25, epochs=18):
    """What is read after some epochs of batches of 48, in which a share is taken from the `kept` first old examples."""
    (old_x, _, old_y), (_, x, y) = digits("old", seed), digits("train", seed)
    order = torch.Generator().manual_seed(seed)
    queue = [pair for _ in range(epochs) for pair in replay_batches(len(x), kept, 48, share, order)]
    steps = iter(queue)

    def loss(net, dice):
        new, old = next(steps)
        return F.cross_entropy(net(torch.cat([x[new], old_x[old]])), torch.cat([y[new], old_y[old]]))

    return judged(learn(old_self(seed), loss, 3e-3, len(queue)), "test", seed)


KEPT = (10, 30, 100, 300, 600)
reads = {kept: [rehearsed(kept, seed) for seed in range(3)] for kept in KEPT}
fig, ax = figure(width=8, height=3.2)
for name, color, mark in (("old", COLORS[0], "o"), ("new", COLORS[1], "s")):
    ax.plot(KEPT, [100 * sum(r[name] for r in each) / len(each) for each in reads.values()], color=color, label=name)
    for kept, each in reads.items():
        ax.plot([kept] * len(each), [100 * r[name] for r in each], mark, color=color, markersize=4)
ax.set(xscale="log", xlabel="old examples that were kept", ylabel="read right, %", ylim=(0, 100))
ax.set_xticks(KEPT, KEPT)
ax.minorticks_off()
ax.legend(loc="lower right")
olds = {kept: sum(r["old"] for r in each) / len(each) for kept, each in reads.items()}
show(fig, alt="Accuracy against the number of old examples that were kept, three seeds. Old task: "
     + ", ".join(f"{kept} kept {right:.0%}" for kept, right in olds.items()) + ".",
     title=f"{KEPT[0]} old examples in the batches: {olds[KEPT[0]]:.0%} of the old task. {KEPT[2]} of them: "
           f"{olds[KEPT[2]]:.0%}")

# %% [markdown]
# ## "Learn the tasks together"
#
# Now the real model, SmolLM2-135M-Instruct. The new task: the plays of Shakespeare. What may be forgotten: plain
# English prose, scikit-learn's pages on its data sets; the prose that is replayed comes from other pages than the prose
# that is tested. Eight steps of AdamW on batches of six passages of 32 tokens; three seeds; one rate for all arms,
# which is a limit of this test. Losses are in nats a token; each is compared with the model before.
#
# Two arms beside: the upper half of the layers alone, and the mean of the weights before and after. And a control: the
# plays that replay has, *without* the prose. If that keeps as much, it was only the smaller dose. (Keeping may exceed
# everything: the pages that are replayed are of the same kind as those that are tested, so prose can also get better.)
#
# **Before the run:** of what plays alone forget, replay keeps a share, and it learns a share of what they learn.
# *Correct* if it surely keeps more than half, surely learns more than half, and if replay helps on the digits, too,
# where every way has its own best rate. *Imprecise* if it only keeps something surely. *Wrong* if it surely keeps
# nothing (forgets surely more than plays alone). Else *unverifiable*.

# %% claim="A10.5"
from experiments.A10_5 import BEFORE as UNTRAINED
from experiments.A10_5 import FEWER, LEARNED, PLAIN, forgotten, learned, shares
from experiments.A10_5 import KEPT as KEPT_SHARE
from experiments.A10_5 import MEAN as HALFWAY
from experiments.A10_5 import REPLAY as MIXED
from experiments.A10_5 import UPPER as UPPER_HALF
from labkit.conversion import quiet

mixed = evidence("A10.5")
give_back()  # what figures and networks have left: the real model is large
with quiet():
    again = mixed.again()
print(again)
arms = [PLAIN, MIXED, FEWER, UPPER_HALF, HALFWAY]
fig, ax = figure(width=9, height=3.9)
for arm, color, mark in zip(arms, COLORS, "os^DX", strict=False):
    across, down = learned(mixed, arm), forgotten(mixed, arm)
    ax.plot(across, down, mark, color=color, alpha=0.5, markersize=5)
    ax.plot(sum(across) / len(across), sum(down) / len(down), mark, color=color, markersize=10, label=arm)
ax.plot(0, 0, "*", color=COLORS[6], markersize=13, label=UNTRAINED)
ax.axhline(0, color="#444444", linestyle=":", linewidth=1)
ax.set(xlabel="plays: nats a token learned", ylabel="prose: nats a token forgotten")
ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
lost_prose, won = {a: interval(forgotten(mixed, a)) for a in arms}, {a: interval(learned(mixed, a)) for a in arms}
show(fig, alt="Nats of prose that are forgotten against nats of plays that are learned, small marks for seeds: "
     + "; ".join(f"{a}: forgets {lost_prose[a].mean:+.2f}, learns {won[a].mean:+.2f}" for a in arms) + ".",
     title=f"Prose forgotten: {lost_prose[PLAIN].mean:+.2f} nats by plays alone, {lost_prose[MIXED].mean:+.2f} with "
           f"prose in the batch")
kept_share, learned_share = shares(mixed, MIXED)
on_digits = points(frozen, "all layers, replay of 100", "both", ALL)
if kept_share.above(KEPT_SHARE) and learned_share.above(LEARNED) and on_digits.above(0):
    word = "correct"
elif kept_share.above(0):
    word = "imprecise"
else:
    word = "wrong" if kept_share.below(0) else "unverifiable"
verdict(
    "A10.5",
    word,
    f"Replay keeps {100 * kept_share.low:.0f} to {100 * kept_share.high:.0f} % of what plays alone forget, and learns "
    f"{100 * learned_share.low:.0f} to {100 * learned_share.high:.0f} % of what they learn; half the plays without "
    f"prose keep {100 * shares(mixed, FEWER)[0].mean:.0f} % and learn {100 * shares(mixed, FEWER)[1].mean:.0f} % (95 % "
    f"intervals over {kept_share.n} seeds). On the digits, each at its own best rate, 100 old examples give "
    f"{on_digits.text('+.0f')} points of the mean of both tasks.",
)
for arm in (UPPER_HALF, HALFWAY):
    kept, gained = shares(mixed, arm)
    print(f"Beside: {arm}: {kept.text('.0%')} are kept, {gained.text('.0%')} learned.")
if won[HALFWAY].above(won[PLAIN].mean):
    print("Half of the way reads plays better than all of it: at this one rate plays alone go too far.")

# %% [markdown]
# ## Exercise 8: average the weights
#
# A cure for afterwards: put the old weights and the new ones together. **WiSE-FT** (Wortsman et al. 2021) goes a part
# of the way, $\theta = (1-a)\,\theta^0 + a\,\theta^1$; a **model soup** averages several fine-tuned models. No
# training, no data, no cost when it runs. It works where the loss has no barrier between the models.


# %% exercise="average_models"
def average_models(states, weights=None):
    """One model from several: the weighted mean of their weights.

    states:  list of one or more dicts from names to tensors (state dicts), all with the same
             names, shapes and dtypes; the order of the names may differ
    weights: list of as many numbers, whose sum isn't 0: state i counts with
             weights[i] / sum(weights). Negative ones are allowed (they go beyond a model).
             None: all count alike.
    Floating-point tensors are averaged, in float32 or float64, and rounded once to their dtype.
    Whole numbers and booleans (counters, masks) are those of the first state.

    Returns a new dict with the names of the states, and new tensors of the dtypes of the first
    state: nothing shares memory with an input, nothing is changed.

    Wortsman et al. 2021, arXiv:2109.01903 (two models), and 2022, arXiv:2203.05482 (soups).
    """
    ### BEGIN SOLUTION
    weights = [1.0] * len(states) if weights is None else weights
    part = [weight / sum(weights) for weight in weights]
    mean = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            kind = torch.float64 if first.dtype == torch.float64 else torch.float32
            terms = [a * state[name].to(kind) for a, state in zip(part, states, strict=True)]
            mean[name] = sum(terms).to(first.dtype)
        else:
            mean[name] = first.clone()
    return mean
    ### END SOLUTION


# %% check="average_models"
check(average_models)

# %% [markdown]
# The whole way from the old self to the new one, for two kinds of fine-tuning: plain, and one that EWC held back. The
# best place is read off test digits, one seed, one learning rate. (On the real model you have seen one place above: the
# mean of before and after.)

# %% tags=["payoff"]
def after(penalty=None):
    """The state dict after 150 steps on the new task, with a penalty or without."""
    def loss(net, dice):
        return task(net, 0, dice) + (penalty(dict(net.named_parameters())) if penalty else 0)

    return learn(before, loss, 3e-3).state_dict()


ends = {"plain": after(), "held back by EWC": after(lambda params: ewc_penalty(params, start, matters, 100.0))}
ways = [i / 10 for i in range(11)]
fig, axes = figure(1, 2, width=10, height=3.2, sharey=True)
middle = {}
for ax, (name, end) in zip(axes, ends.items(), strict=True):
    line = []
    for a in ways:
        net = copy.deepcopy(before)
        net.load_state_dict(average_models([before.state_dict(), end], [1 - a, a]))
        line.append(judged(net, "test", 0))
    for number, color, mark in (("old", COLORS[0], "o"), ("new", COLORS[1], "s"), ("both", COLORS[6], "")):
        style = ":" if number == "both" else "-"
        ax.plot(ways, [100 * r[number] for r in line], style, color=color, marker=mark, label=number)
    middle[name] = max(line, key=lambda r: r["both"])
    ax.set(xlabel="share of the new weights, a", title=name, ylim=(0, 100))
axes[0].set_ylabel("read right, %")
axes[1].legend(loc="center left", bbox_to_anchor=(0.02, 0.71))
best_at = ", ".join(f"{name} {r['old']:.0%} and {r['new']:.0%}" for name, r in middle.items())
show(fig, alt=f"Accuracy of the old and the new task along the line between two networks, two panels. At the best "
     f"place, old and new: {best_at}.", title=f"The best place between before and after, old and new: {best_at}")

# %% [markdown]
# ## All cures on one map
#
# One mark a cure, the mean of eight seeds; lines are a standard deviation over the seeds; up and right is better.
# Circles: shared outputs. Squares: outputs of its own, which is an easier game, since the network is told which task it
# plays. Before you rank them, look at what each may use: the old self sees 600 old inputs and 48 rows more a step,
# replay 100 labeled ones and not a row more, the penalties no old example (EWC needs 200 inputs once), the new inputs
# and noise none. And look at how far each was searched: the old self is the best of twelve settings, L2-SP and EWC of
# six, replay of two.

# %% tags=["demo"]
spots = [
    (frozen, BEFORE, "before", "*"), (frozen, ALL, "plain fine-tuning", "X"), (frozen, TOP, "top layer alone", "o"),
    (thawed, GRADUAL, "gradual", "o"), (held_back, TO_START, "L2-SP", "o"), (held_back, EWC, "EWC", "o"),
    (held_back, MEAN, "average", "o"), (taught, ON_NEW, "old self, new inputs", "o"),
    (taught, ON_NOISE, "old self, noise", "o"), (taught, ON_OLD, "old self, old inputs", "o"),
    (taught, REPLAYED, "replay of 100", "o"), (frozen, OWN_TOP, "top layer alone, own outputs", "s"),
    (thawed, OWN_GRADUAL, "gradual, own outputs", "s"), (taught, OWN, "old self, own outputs", "s"),
]
fig, ax = figure(width=10.5, height=5.2)
for number, (found_in, arm, name, mark) in enumerate(spots):
    old, new = (100 * torch.tensor(found_in.each(arm, which)) for which in ("old", "new"))
    color = COLORS[number % len(COLORS)] if mark in "os" else COLORS[6]
    ax.errorbar(new.mean(), old.mean(), xerr=new.std(), yerr=old.std(), fmt=mark, color=color, markersize=9,
                elinewidth=1, alpha=0.85, markerfacecolor=color if number < 9 else "white", label=name)
ax.set(xlabel="new task: read right, %", ylabel="old task: read right, %", xlim=(0, 100), ylim=(0, 100))
ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
means = {name: found_in.interval(arm, "both").mean for found_in, arm, name, mark in spots if mark == "o"}
first_of = max(means, key=means.get)
show(fig, alt="Old against new accuracy, a mark a cure with its standard deviation. Mean of both: "
     + ", ".join(f"{name} {100 * mean:.0f} %" for name, mean in means.items()) + ".",
     title=f"With shared outputs {first_of} reads most of both: {means[first_of]:.0%}; plain fine-tuning "
           f"{frozen.interval(ALL, 'both').mean:.0%}")

# %% [markdown]
# And what do they cost? Counted for one step on these networks: operations of all matrix products, forward and
# backward, by torch's own counter, and the numbers that must be kept besides the model.

# %% tags=["demo"]
from torch.utils.flop_counter import FlopCounterMode

from experiments.forgetting import fisher, keeps_to, pulled, replayed, state

weights = sum(p.numel() for p in before.parameters())
important = fisher(before, digits("old", 0)[0][:50])
steps_of = {
    "plain": (lambda net, dice: task(net, 0, dice), 0),
    "L2-SP": (lambda net, dice: task(net, 0, dice) + pulled(state(before))(net), weights),
    "EWC": (lambda net, dice: task(net, 0, dice) + pulled(state(before), important)(net), 2 * weights),
    "replay of 100": (replayed(0, 100), 100 * 64),
    "old self, old inputs": (lambda net, dice: task(net, 0, dice) + keeps_to(before, digits("old", 0)[0], dice)(net),
                             weights + 600 * 64),
}
costs = {}
for name, (loss, numbers) in steps_of.items():
    net, dice = copy.deepcopy(before), torch.Generator().manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        loss(net, dice).backward()
    costs[name] = counter.get_total_flops()
    print(f"{name:22} × {costs[name] / costs['plain']:.2f} operations a step, {numbers:>7,} numbers kept")

# %% [markdown]
# The old self costs a forward pass, about a third of a training step, and here also the 48 further rows, which the
# model must read and learn from as well. (Sums over weights aren't matrix products, so the penalties count nothing.)
# For a model of billions of weights the balance is another one: a few thousand old texts are small beside it, a second
# copy of the weights isn't.
#
# ## 2026: what is done
#
# * **Mix.** General data in the fine-tuning set is a common recipe. Where the old data are not to be had (few
#   open-weights models come with theirs), the model writes them itself: **self-synthesized rehearsal** (Huang et al.
#   2024).
# * **LoRA** "learns less and forgets less" (Biderman et al. 2024): it lies on the same trade, at another place. Its
#   other merit is that it can be switched off.
# * **Reinforcement learning on the model's own texts** forgets less than supervised fine-tuning at equal new-task
#   accuracy; what predicts forgetting is the KL divergence from the old model *on the new task's inputs* (Shenfeld,
#   Pari and Agrawal 2025, "RL's Razor"). RL's KL term to a reference model is a cousin of exercise 6: the other way
#   round, weighed with the *new* model's probabilities, on texts that it writes itself.
# * **Averaging and merging** are routine at the end of training, between checkpoints and between specialists.
# * **Measure.** Run a general benchmark before and after. Without it nobody knows what was lost.
#
# ## What you have now
#
# * Seven cures, and for each what it needs: weights, their Fisher information, inputs, examples, or outputs of its own.
# * A cure is judged by two numbers. Keeping is free to whoever doesn't learn.
# * Frozen layers protect what they compute alone. Penalties protect weights; teachers protect answers, where you ask.
# * What a real model lost, and what prose in the batch kept: in nats, with a control for the dose.
#
# **Sources.** McCloskey and Cohen 1989, "Catastrophic interference in connectionist networks", *Psychology of Learning
# and Motivation* 24; Li and Hoiem 2016, [arXiv:1606.09282](https://arxiv.org/abs/1606.09282) (LwF); Kirkpatrick et al.
# 2017, [arXiv:1612.00796](https://arxiv.org/abs/1612.00796) (EWC); Lopez-Paz and Ranzato 2017,
# [arXiv:1706.08840](https://arxiv.org/abs/1706.08840) (average accuracy over tasks); Howard and Ruder 2018,
# [arXiv:1801.06146](https://arxiv.org/abs/1801.06146) (ULMFiT); Li, Grandvalet and Davoine 2018,
# [arXiv:1802.01483](https://arxiv.org/abs/1802.01483) (L2-SP); Wortsman et al. 2021,
# [arXiv:2109.01903](https://arxiv.org/abs/2109.01903) (WiSE-FT), and 2022,
# [arXiv:2203.05482](https://arxiv.org/abs/2203.05482) (soups); Huang et al. 2024,
# [arXiv:2403.01244](https://arxiv.org/abs/2403.01244) (self-synthesized rehearsal); Biderman et al. 2024,
# [arXiv:2405.09673](https://arxiv.org/abs/2405.09673) (LoRA); Shenfeld, Pari and Agrawal 2025,
# [arXiv:2509.04259](https://arxiv.org/abs/2509.04259) (RL's Razor).
