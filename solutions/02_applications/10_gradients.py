# ---
# jupyter:
#   course:
#     title: "Vanishing and exploding gradients"
#     exercises: applications.gradients
#     questions: [A08]
#     needs: [01_transformer/05_normalization]
# ---

# %% [markdown]
# # Vanishing and exploding gradients
#
# A deep network is a chain of multiplications. On the way back from the loss the gradient is multiplied once in every
# layer, and fifty factors of 0.9 leave half a percent, fifty factors of 1.1 make it a hundred times as large. Most of
# this chapter is about what the factors are made of, and who can change them. The end is about gradients that are large
# for another reason: a strange batch, or logits that grow.
#
# The interview question: **what are vanishing and exploding gradients in the training of large models?** The usual
# answer is a list of cures: ReLU, Xavier, He, BatchNorm, residual connections; clipping, a smaller learning rate, Adam.
# You will build several of them, and put most sentences of that list to an experiment that may go either way.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, figure, interval, shakespeare, show, smollm, verdict

# %% [markdown]
# ## Fifty layers, there and back
#
# Let $h_l = f(W_l h_{l-1})$ be what layer $l$ hands on. The chain rule gives the gradient at layer $l-1$ from that at
# layer $l$:
#
# $$\frac{\partial L}{\partial h_{l-1}} = W_l^\top \Big( f'(W_l h_{l-1}) \odot \frac{\partial L}{\partial h_l} \Big).$$
#
# Two things decide how much of it is left: the size of the weights, and the **slope** $f'$ of the activation.
#
# `travel` sends random numbers through a stack of layers, and a random gradient back. We plot how large the signal is
# on its way forward, and how much of the gradient has survived on its way back (1 is what enters at the last layer).

# %% tags=["demo"]
WIDTH, DEPTH = 64, 50
XAVIER, HE = (1 / WIDTH) ** 0.5, (2 / WIDTH) ** 0.5  # for square layers; you will build the general rule
ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "ReLU": torch.relu, "GELU": F.gelu}


def batch_norm(z):
    return (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()


def layer_norm(z):
    return F.layer_norm(z, z.shape[-1:])


def nothing(z):
    return z


def travel(activation, std, depth=DEPTH, norm=nothing, residual=False, seed=0):
    """Send 64 inputs forward and a gradient back, in float64.

    Returns, for the input and each layer's output: the root mean square of the numbers, and the
    norm of the gradient there as a share of that at the last layer. Two tensors [depth + 1].
    """
    g = torch.Generator().manual_seed(seed)
    streams = [torch.randn(64, WIDTH, generator=g, dtype=torch.float64).requires_grad_()]
    for _ in range(depth):
        h, weight = streams[-1], torch.randn(WIDTH, WIDTH, generator=g, dtype=torch.float64) * std
        inner = h + activation(norm(h) @ weight.T) if residual else activation(norm(h @ weight.T))
        streams.append(inner)
    arriving = torch.randn(64, WIDTH, generator=g, dtype=torch.float64)
    gradients = torch.autograd.grad((streams[-1] * arriving).sum(), streams)
    norms = torch.stack([gradient.norm() for gradient in gradients])
    return torch.stack([h.detach().square().mean().sqrt() for h in streams]), norms / norms[-1]


NETS = {
    "ReLU, std 0.3": ("ReLU", 0.3),
    "ReLU, He": ("ReLU", HE),
    "tanh, Xavier": ("tanh", XAVIER),
    "sigmoid, Xavier": ("sigmoid", XAVIER),
    "ReLU, std 0.05": ("ReLU", 0.05),
}
fig, (left, right) = figure(1, 2, width=10.5, height=3.8, sharex=True)
arrived = {}
for (name, (kind, std)), color, style in zip(
    NETS.items(), COLORS, ["--", "-", "-", "--", ":"], strict=False
):
    sizes, shares = travel(ACTIVATIONS[kind], std)
    arrived[name] = float(shares[0])
    left.plot(sizes, color=color, linestyle=style, label=name)
    right.plot(shares, color=color, linestyle=style, label=name)
left.set(yscale="log", xlabel="layer (forward, from left to right)", ylabel="size of the signal (RMS)")
right.set(yscale="log", xlabel="layer (backward, from right to left)",
          ylabel="gradient, as a share of\nthat at the last layer")
right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
low, high = min(arrived, key=arrived.get), max(arrived, key=arrived.get)
show(
    fig,
    alt="Size of the signal and share of the gradient by layer, on logarithmic axes. What arrives: "
    + ", ".join(f"{name} {share:.0e}" for name, share in arrived.items()) + ".",
    title=f"What arrives after {DEPTH} layers: from {arrived[low]:.0e} ({low}) "
    f"to {arrived[high]:.0e} ({high})",
)

# %% [markdown]
# A straight line on a logarithmic axis means the same factor in every layer. Look at the sigmoid left *and* right: is
# its way back as healthy as its way forward?
#
# ## The size of a weight
#
# One output of a layer is $z = \sum_i w_i x_i$ over its $n_{in}$ inputs. With independent weights of mean zero
# variances add up:
#
# $$\mathrm{Var}(z) = n_{in}\,\mathrm{Var}(w)\,\mathrm{E}[x^2].$$
#
# So the signal keeps its size if $\mathrm{Var}(w) = 1/n_{in}$. On the way back the roles change: each input hears from
# $n_{out}$ outputs, and the gradient keeps its size if $\mathrm{Var}(w) = 1/n_{out}$. Glorot and Bengio (2010) took the
# mean of both numbers; the scheme is called after the first author's first name, **Xavier**:
#
# $$\mathrm{Var}(w) = \frac{2}{n_{in} + n_{out}}.$$
#
# That holds for an activation that is nearly the identity around zero. A ReLU throws away half of the numbers, and with
# them half of $\mathrm{E}[z^2]$, so He et al. (2015, arXiv:1502.01852) double the variance. A leaky ReLU of slope $a$
# lets $(1 + a^2)/2$ through:
#
# $$\mathrm{Var}(w) = \frac{2}{(1 + a^2)\, n_{in}}.$$
#
# The only trap is to count right. A convolution's weight is `[out, in, height, width]`, and one output hears
# `in · height · width` numbers.
#
# ## Exercise 1: how large?

# %% exercise="init_std"
def init_std(shape, scheme, slope=0.0):
    """The standard deviation with which a weight is drawn.

    shape:  a tuple, list or torch.Size as torch stores weights: (out, in) of a linear layer,
            (out, in, *kernel) of a convolution with a kernel of one or more dimensions
    scheme: "xavier" or "he"
    slope:  the slope of a leaky ReLU on its negative side, a float; 0 is the ordinary ReLU. It
            plays a part under "he" only
    fan_in is `in` times the places of the kernel, fan_out is `out` times the places of the
    kernel.
    xavier: the variance is 2 / (fan_in + fan_out). he: it is 2 / ((1 + slope²) · fan_in).
    Returns the standard deviation: a float, or a tensor of no dimension. Raises ValueError
    where the shape has fewer than two dimensions (a bias has no fans), or for any other scheme.

    Glorot, Bengio 2010 (AISTATS), equation 12; He et al. 2015, arXiv:1502.01852, section 2.2.
    Not with torch.nn.init.
    """
    ### BEGIN SOLUTION
    if len(shape) < 2 or scheme not in ("xavier", "he"):
        raise ValueError(f"no standard deviation for {tuple(shape)} under {scheme!r}")
    field = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * field, shape[0] * field
    variance = 2 / (fan_in + fan_out) if scheme == "xavier" else 2 / ((1 + slope**2) * fan_in)
    return math.sqrt(variance)
    ### END SOLUTION


# %% check="init_std"
check(init_std)

# %% [markdown]
# Is your number special? Make the weights a little larger and a little smaller than it says, and see what comes back
# through fifty layers. Each line is one network, an activation with the scheme that is recommended for it.

# %% tags=["payoff"]
FACTORS = torch.logspace(-0.5, 0.5, 21, base=4)
square = (WIDTH, WIDTH)
MATCHES = {"ReLU": "he", "tanh": "xavier", "sigmoid": "xavier"}
fig, ax = figure(width=8.6, height=3.7)
at_one, reach = {}, {}
for (kind, scheme), color, style in zip(MATCHES.items(), COLORS, ["-", "--", ":"], strict=False):
    std = float(init_std(square, scheme))
    shares = [float(travel(ACTIVATIONS[kind], f * std)[1][0]) for f in FACTORS]
    at_one[kind], reach[kind] = shares[len(shares) // 2], (shares[0], shares[-1])
    ax.plot(FACTORS, shares, color=color, linestyle=style, label=f"{kind}, {scheme}")
ax.axvline(1, color="#777777", linestyle=":", linewidth=1)
ax.axhspan(1e-2, 1e2, color=COLORS[2], alpha=0.12, linewidth=0, label="1/100 to 100")
ax.set(xscale="log", yscale="log", xlabel="weights, as a multiple of your standard deviation",
       ylabel="gradient that arrives")
ax.set_xticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
ax.minorticks_off()
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show(
    fig,
    alt=f"Share of the gradient that arrives through {DEPTH} layers against the size of the weights. From the smallest "
    "to the largest weights: " + ", ".join(f"{kind} {a:.0e} to {b:.0e}" for kind, (a, b) in reach.items()) + ".",
    title="At exactly your size: " + ", ".join(f"{kind} {x:.1g}" for kind, x in at_one.items()),
)

# %% [markdown]
# A factor of 1.1 in every weight is $1.1^{10} \approx 2.6$ after ten layers and $1.1^{50} \approx 117$ after fifty, as
# long as the activation passes sizes on, as ReLU does. Tanh doesn't: it squashes what is too large. (torch's
# `calculate_gain` gives it 5/3 instead of 1; find that place in the figure.) Does each line cross the band where its
# recommendation says, at 1?
#
# ## "Xavier suits sigmoid and tanh"
#
# So the notes say. Let us fix what "suits" means before looking: **between 1/100 and 100 of the gradient arrives after
# 30 layers, in each of five random networks.** Softsign, $x / (1 + |x|)$, is the third activation of the 2010 paper.
# On the right we are kind to the sigmoid, and look for *any* size of the weights that suits it.
#
# **Before the run:** *correct* if Xavier suits both, *imprecise* if it suits tanh alone, *wrong* if not even tanh.
# *Unverifiable* if half of Xavier's weights suit tanh, too: then the band refuses nothing.

# %% claim="A08.3"
DEPTHS, SEEDS = [2, 5, 10, 20, 30], range(5)
TRIED = {"tanh": torch.tanh, "softsign": F.softsign, "sigmoid": torch.sigmoid}


def suits(shares):
    return bool((shares > 1e-2).all() and (shares < 1e2).all())


def arriving(activation, std, depth=30, **options):
    """The share of the gradient that arrives in each of five networks."""
    found = [travel(activation, std, depth, seed=s, **options)[1][0] for s in SEEDS]
    return torch.stack(found)


by_depth = {
    name: torch.stack([arriving(activation, XAVIER, depth) for depth in DEPTHS])
    for name, activation in TRIED.items()
}
fitting = {name: suits(shares[-1]) for name, shares in by_depth.items()}
multiples = torch.logspace(-0.5, 2, 21)
sigmoid_at = torch.stack([arriving(torch.sigmoid, float(m) * XAVIER) for m in multiples])
window = [float(m) for m, shares in zip(multiples, sigmoid_at, strict=True) if suits(shares)]

fig, (left, right) = figure(1, 2, width=10, height=3.6, sharey=True)
for (name, shares), color, marker in zip(by_depth.items(), COLORS, "os^", strict=False):
    left.fill_between(DEPTHS, shares.amin(1), shares.amax(1), color=color, alpha=0.25, linewidth=0)
    left.plot(DEPTHS, shares.median(1).values, color=color, marker=marker, label=name)
right.plot(multiples, sigmoid_at, color=COLORS[2], linewidth=1, marker="^", markersize=3)
right.axvline(1, color="#777777", linestyle=":", linewidth=1)
for ax in (left, right):
    ax.axhspan(1e-2, 1e2, color="#bbbbbb", alpha=0.3, linewidth=0)
left.set(yscale="log", xlabel="layers", ylabel="gradient that arrives", title="Xavier, five seeds")
left.legend(loc="lower left")
right.set(xscale="log", xlabel="weights, as a multiple of Xavier's", title=f"sigmoid, {DEPTHS[-1]} layers")
yes, no = ([name for name in fitting if fitting[name] is kind] for kind in (True, False))
show(
    fig,
    alt="Left: the gradient that arrives against depth under Xavier; at the end, in the median, "
    + ", ".join(f"{name} {float(shares[-1].median()):.0e}" for name, shares in by_depth.items())
    + ". Right: the same for the sigmoid against the size of the weights, with the band of what suits.",
    title=f"Xavier suits {', '.join(yes) or 'none'}; not {', '.join(no) or 'any other'}. Sigmoid would want "
    + (f"{min(window):.0f} to {max(window):.0f} times its weights" if window else "no size that was tried"),
)
saturated = ""
if window:
    g = torch.Generator().manual_seed(0)
    inside = torch.rand(64, WIDTH, generator=g)
    for _ in range(3):
        inside = (inside @ torch.randn(WIDTH, WIDTH, generator=g) * XAVIER * window[0]).sigmoid()
    flat_units = (inside * (1 - inside) < 0.01 * 0.25).float().mean()
    saturated = f" At {window[0]:.0f} times Xavier's {flat_units:.0%} of a third layer has under 1 % of the full slope."
halved = suits(arriving(torch.tanh, XAVIER / 2))
verdict(
    "A08.3",
    "unverifiable" if halved
    else "correct" if fitting["tanh"] and fitting["sigmoid"] else "imprecise" if fitting["tanh"] else "wrong",
    f"Suits tanh: {'yes' if fitting['tanh'] else 'no'}; suits sigmoid: {'yes' if fitting['sigmoid'] else 'no'}, "
    f"of whose gradient {by_depth['sigmoid'][-1].median():.0e} arrives.{saturated} Half of Xavier's weights suit tanh: "
    f"{'yes' if halved else 'no'}.",
)

# %% [markdown]
# The derivation says what to expect. It needs slope 1 at zero, and $\sigma' = \sigma(1-\sigma) \le \frac14$. A
# sigmoid's outputs also have the mean ½, which the next layer reads as a constant push.
#
# Larger weights might make up for the slope; but they also push the units to where the slope is smaller still. That is
# what the right panel tries, and the sentence above counts the units that are *saturated*, that is flat, at the first
# size that suits (if one does). Glorot and Bengio themselves warn of the sigmoid in deep networks (section 3.1).
#
# ## "He suits ReLU"
#
# The same band, for ReLU, and 50 layers. Xavier beside it: what is a factor of two in the variance worth? On the left
# the size of the signal that comes out at the end, since forward and backward are different things.
#
# **Before the run:** *correct* if He suits and Xavier doesn't, *imprecise* if both suit, *wrong* if He doesn't.

# %% claim="A08.4"
schemes = {"Xavier": XAVIER, "He": HE}
ends = {n: [travel(torch.relu, s, seed=i) for i in SEEDS] for n, s in schemes.items()}
fig, (left, right) = figure(1, 2, width=9.6, height=2.7, sharey=True)
middle = {}
for row, (name, found) in enumerate(ends.items()):
    sizes = torch.tensor([float(size[-1]) for size, _ in found])
    shares = torch.tensor([float(share[0]) for _, share in found])
    middle[name] = sizes.median(), shares.median(), suits(shares)
    for ax, values in ((left, sizes), (right, shares)):
        ax.scatter(values, [row] * len(values), color=COLORS[row], marker="os"[row], s=50)
left.set_yticks(range(len(schemes)), list(schemes))
for ax, label in ((left, "size of the signal at the end"), (right, "gradient that arrives")):
    ax.axvspan(1e-2, 1e2, color="#bbbbbb", alpha=0.3, linewidth=0)
    ax.set(xscale="log", ylim=(-0.5, 1.5), xlabel=f"{label}, {DEPTH} layers")
show(
    fig,
    alt=f"One dot a seed, for a ReLU network of {DEPTH} layers. In the median: "
    + ", ".join(f"{name} signal {size:.0e}, gradient {share:.0e}" for name, (size, share, _) in middle.items()) + ".",
    title="ReLU: " + "; ".join(
        f"{name} {'suits' if ok else 'does not suit'}, {share:.0e} arrives"
        for name, (_, share, ok) in middle.items()
    ),
)
verdict(
    "A08.4",
    "correct" if middle["He"][2] and not middle["Xavier"][2] else "imprecise" if middle["He"][2] else "wrong",
    f"Five of five networks within the band under He: {'yes' if middle['He'][2] else 'no'}; under Xavier: "
    f"{'yes' if middle['Xavier'][2] else 'no'}. He's weights are larger by √2.",
)

# %% [markdown]
# The distance between the dots of one row is chance: a network of finite width has a random product in it. He keeps
# the *mean* of the square right, nothing else. And don't say that it compensates for sparsity *during training*: it is
# a statement about the first step.
#
# ## Exercise 2: a whole network
#
# A model is a tree of modules. What has a fan-in is drawn; biases start at zero; norms start as the identity. All of it
# in place: an optimizer may hold these parameters already.

# %% exercise="init_network"
def init_network(model, scheme, generator):
    """Give a model new weights, in place.

    model:     an nn.Module; layers may be nested to any depth
    scheme:    "xavier" or "he", see init_std
    generator: a torch.Generator. For each weight, in the order of model.modules(), there is one
               call torch.randn(weight.shape, generator=generator): a normal distribution of
               mean 0
    nn.Linear, nn.Conv1d, nn.Conv2d: the weight is that draw times init_std(weight.shape,
    scheme); the bias, where there is one, is zero. nn.LayerNorm, nn.BatchNorm1d: where they
    have them, the weight is one and the bias zero. Everything else (an nn.Embedding, a bare
    parameter) stays as it is. The nn.Parameter objects stay the same, with requires_grad as it
    was: frozen ones get new numbers, too.
    Returns the model.

    He et al. 2015, arXiv:1502.01852, section 2.2. Not with torch.nn.init's xavier or kaiming
    functions.
    """
    ### BEGIN SOLUTION
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                draw = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(draw * init_std(module.weight.shape, scheme))
            elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d)):
                if module.weight is None:
                    continue
                module.weight.fill_(1.0)
            else:
                continue
            if module.bias is not None:
                module.bias.zero_()
    return model
    ### END SOLUTION


# %% check="init_network"
check(init_network)

# %% [markdown]
# Doesn't torch do that already? `nn.Linear` draws its weights with `kaiming_uniform_` too. But with a slope of
# $\sqrt 5$, which makes the variance $1/(3 n_{in})$: a sixth of He's. Twenty layers on handwritten digits, with torch's
# own beginning and with yours, both under plain SGD at a rate of 0.03.

# %% tags=["payoff"]
from sklearn.datasets import load_digits

pixels, classes = (torch.tensor(part) for part in load_digits(return_X_y=True))
pixels = ((pixels - pixels.mean()) / pixels.std()).float()


def deep_net(depth, seed):
    """A ReLU network of so many layers, 64 wide, with torch's own initial weights."""
    torch.manual_seed(seed)
    sizes = [64] * depth + [10]
    layers = [layer for i, o in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def losses_of(model, steps, seed, lr=0.03):
    g, losses = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        rows = torch.randint(len(pixels), (64,), generator=g)
        loss = F.cross_entropy(model(pixels[rows]), classes[rows])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        losses.append(loss.item())
    return losses


fig, ax = figure(width=8.4, height=3.4)
reached = {"torch's own": [], "yours": []}
for seed in range(3):
    g = torch.Generator().manual_seed(seed)
    pair = zip(reached, (deep_net(20, seed), init_network(deep_net(20, seed), "he", g)), strict=True)
    for (name, model), color, style in zip(pair, COLORS[1::-1], ("--", "-"), strict=True):
        losses = losses_of(model, 80, seed)
        reached[name].append(sum(losses[-10:]) / 10)
        ax.plot(losses, color=color, linestyle=style, linewidth=1.3, label=name if seed == 0 else None)
ax.axhline(math.log(10), color="#777777", linestyle=":", linewidth=1)
ax.text(80, math.log(10) + 0.1, "knowing nothing", fontsize=9, ha="right", va="bottom")
ax.set(xlabel="step", ylabel="training loss (nats)")
ax.legend(loc="lower left")
show(
    fig,
    alt="Training loss of a network of 20 layers on digits, three seeds each. At the end: " + "; ".join(
        f"{name} {', '.join(f'{loss:.2f}' for loss in ends)}" for name, ends in reached.items()
    ) + ".",
    title="20 layers, after 80 steps: " + ", ".join(
        f"{name} {sum(ends) / 3:.2f}" for name, ends in reached.items()
    ) + " nats",
)

# %% [markdown]
# Why is the default so small? It is the range $\pm 1/\sqrt{n_{in}}$ of Lua Torch; the $\sqrt 5$ makes
# `kaiming_uniform_` give just that, and it stays for compatibility
# ([pytorch#15314](https://github.com/pytorch/pytorch/issues/15314),
# [#1667](https://github.com/pytorch/pytorch/issues/1667)). Transformers draw their weights by rules of their own.
#
# ## "ReLU avoids saturation"
#
# "ReLU cuts negative values to zero and so avoids the flat regions of sigmoid and tanh." Cut to zero *is* flat: the
# slope there is exactly 0. A unit whose input is negative for every example of the training set gets no gradient at
# all, and can't come back by itself. It is **dead**.
#
# Two measurements. Left, at the first step: which share of all activations is flat (slope below 1 % of the steepest)?
# Right, after training on digits at several learning rates: which share of the units is flat for *every one* of 600
# images? Beside ReLU we train a leaky ReLU, which keeps a slope of 0.1 on the negative side and so can't be flat.
#
# `learn` trains many small networks at once, one beside the other: a weight is `[runs, in, out]`.
#
# The left panel is half arithmetic: what goes into a ReLU is negative as often as not. So the verdict hangs on the
# right.
#
# **Before the run:** *imprecise* if in every run at the highest rate more of ReLU's units are dead after training than
# before it; else *correct*.

# %% claim="A08.2"
from sklearn.datasets import load_digits

images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
images = ((images - images.mean()) / images.std()).float()
TESTED = slice(0, 600)  # enough to tell a dead unit, and to measure accuracy


def drawn(sizes, stds, seeds):
    """Weights and biases [runs, in, out] and [runs, 1, out] of a network for each run.

    stds: for each run the standard deviation of its weights, or None for He's.
    """
    made = []
    for seed, std in zip(seeds, stds, strict=True):
        g = torch.Generator().manual_seed(seed)
        made.append([torch.randn(i, o, generator=g) * (std or (2 / i) ** 0.5)
                     for i, o in zip(sizes, sizes[1:], strict=False)])
    weights = [torch.stack(layer) for layer in zip(*made, strict=True)]
    return [p.requires_grad_() for w in weights for p in (w, torch.zeros(len(w), 1, w.shape[-1]))]


def hidden_inputs(parameters, x, activation):
    """What goes into the activation of each layer [runs, rows, units]; the last are the logits."""
    found, h = [], x.expand(len(parameters[0]), *x.shape)
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        found.append(torch.baddbmm(bias, h, weight))
        h = activation(found[-1])
    return found


def learn(parameters, steps, rates, activation=torch.relu, limit=None, make=torch.optim.SGD,
          spoil=lambda step, x: x):
    """Train all runs on the same batches. rates, limit: [runs] or a number.

    The gradient of each run is cut to the norm `limit`, if there is one. Returns the losses, and
    the norms of the gradients before they are cut: [steps, runs] each.
    """
    optimizer, g = make(parameters, lr=1.0), torch.Generator().manual_seed(0)
    runs, losses, lengths = len(parameters[0]), [], []
    rates = torch.as_tensor(rates).expand(runs)
    for step in range(steps):
        rows = torch.randint(len(images), (64,), generator=g)
        logits = hidden_inputs(parameters, spoil(step, images[rows]), activation)[-1]
        loss = F.cross_entropy(logits.mT, labels[rows].expand(runs, -1), reduction="none").mean(1)
        gradients = torch.autograd.grad(loss.sum(), parameters)
        length = sum(gradient.double().square().sum((1, 2)) for gradient in gradients).sqrt()
        factor = torch.ones(runs) if limit is None else (limit / length).clamp(max=1).float()
        before = [p.detach().clone() for p in parameters]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient * factor[:, None, None]
        optimizer.step()
        with torch.no_grad():  # every run has a rate of its own
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old + (parameter - old) * rates[:, None, None])
        losses.append(loss.detach())
        lengths.append(length)
    return torch.stack(losses), torch.stack(lengths)


def slopes(activation, z):
    z = z.detach().requires_grad_()
    return torch.autograd.grad(activation(z).sum(), z)[0].abs()


def leaky(z):
    return F.leaky_relu(z, 0.1)


KINDS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "ReLU": torch.relu, "leaky ReLU": leaky}
flat = {}
for name, activation in KINDS.items():
    net = drawn([64, 64, 64, 64, 10], [None if "ReLU" in name else 1 / 8] * 3, range(3))
    steep = slopes(activation, torch.linspace(-6, 6, 601)).max()
    layers = hidden_inputs(net, images[TESTED], activation)[:-1]
    flat[name] = torch.stack([(slopes(activation, z) < 0.01 * steep).float().mean() for z in layers]).mean()


def dead_units(net, activation):
    """The share of the units that are flat for every image, in the mean over the layers: [runs]."""
    layers = hidden_inputs(net, images[TESTED], activation)[:-1]
    return torch.stack([(slopes(activation, z).amax(1) < 0.01).float().mean(1) for z in layers]).mean(0)


RATES, TIMES = [0.05, 0.2, 0.5, 1.0, 2.0], 5
dead, born = {}, {}
for name in ("ReLU", "leaky ReLU"):
    seeds, rates = list(range(TIMES)) * len(RATES), torch.tensor(RATES).repeat_interleave(TIMES)
    net = drawn([64, 64, 64, 64, 10], [None] * len(seeds), seeds)
    born[name] = dead_units(net, KINDS[name]).view(len(RATES), TIMES)
    learn(net, 80, rates, KINDS[name])
    dead[name] = dead_units(net, KINDS[name]).view(len(RATES), TIMES)

fig, (left, right) = figure(1, 2, width=10, height=3.4)
bars = left.bar(list(flat), [100 * float(share) for share in flat.values()], color=COLORS[0])
left.bar_label(bars, fmt="%.0f")
left.set(ylabel="flat activations, %", title="before the first step", ylim=(0, 100))
for (name, share), color, marker in zip(dead.items(), COLORS[1:], "os", strict=False):
    right.plot(RATES, 100 * share, color=color, marker=marker, linestyle="none", alpha=0.6)
    right.plot(RATES, 100 * share.mean(1), color=color, marker=marker, label=name)
right.set(xscale="log", xlabel="learning rate", ylabel="dead units, %", ylim=(-4, 104),
          title=f"after 80 steps, {TIMES} seeds")
right.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
right.minorticks_off()
right.legend(loc="upper left")
show(
    fig,
    alt="Left, flat activations before training: " + ", ".join(f"{name} {share:.0%}" for name, share in flat.items())
    + f". Right, dead units after training, from rate {RATES[0]:g} to {RATES[-1]:g}: "
    + ", ".join(f"{name} {share[0].mean():.0%} to {share[-1].mean():.0%}" for name, share in dead.items()) + ".",
    title=f"Before training ReLU {flat['ReLU']:.0%} flat (sigmoid {flat['sigmoid']:.0%}), "
    f"{born['ReLU'].mean():.0%} dead;\n"
    f"dead after training at rate {RATES[0]:g}: {dead['ReLU'][0].mean():.0%}, "
    f"at {RATES[-1]:g}: {dead['ReLU'][-1].mean():.0%}",
)
dies = bool((dead["ReLU"][-1] > born["ReLU"][-1]).all())
verdict(
    "A08.2",
    "imprecise" if dies else "correct",
    f"Flat before training: ReLU {flat['ReLU']:.0%}, sigmoid {flat['sigmoid']:.0%}, tanh {flat['tanh']:.0%}. Dead "
    f"ReLU units before training: {born['ReLU'][-1].mean():.0%}; after it at rate {RATES[-1]:g}: "
    f"{dead['ReLU'][-1].min():.0%} to {dead['ReLU'][-1].max():.0%}.",
)

# %% [markdown]
# Where does ReLU help? The slope on ReLU's other side is exactly 1, so that a path through active units passes the
# gradient on undiminished, and the flat half is another one for each example. A sigmoid loses by its slope, which never
# exceeds ¼, saturated or not. Leaky ReLU, GELU and SiLU keep some slope on the negative side. (NaN counts as not dead
# in the figure; where everything has blown up, there is nothing left to die.)
#
# ## Exercise 3: see it in your own model
#
# A loss curve shows *that* something is wrong; the gradient's norm by layer may show *where*. After `loss.backward()`
# all you need is in the parameters.

# %% exercise="gradient_norms_by_layer"
def gradient_norms_by_layer(model, path):
    """The norm of the gradient of each layer of a model.

    model: an nn.Module after backward(): its parameters hold gradients in .grad, in float16,
           bfloat16, float32 or float64; or None, where a parameter is frozen or took no part
    path:  the dotted name of an nn.ModuleList or nn.Sequential inside it, such as
           "model.layers"; its children, in their order, are the layers
    The norm of a layer is the root of the sum of the squares of all gradients of all parameters
    anywhere inside it. A parameter with two names in one layer counts once, one that stands in
    two layers counts in both. A gradient of None adds nothing, and a layer without any gradient
    has norm 0. What stands elsewhere in the model doesn't count. Entries may be as large as
    1e25 or as small as 1e-28: form the squares in float64.
    Returns a float32 tensor [layers]. The gradients stay as they are.

    Pascanu et al. 2013, arXiv:1211.5063, section 2. Not with torch.nn.utils.
    """
    ### BEGIN SOLUTION
    norms = []
    for layer in model.get_submodule(path):
        gradients = [p.grad.double() for p in layer.parameters() if p.grad is not None]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
    return torch.tensor(norms, dtype=torch.float32)
    ### END SOLUTION


# %% check="gradient_norms_by_layer"
check(gradient_norms_by_layer)

# %% [markdown]
# A real model under your eyes: SmolLM2 with its 30 layers and 135 million parameters, reading a piece of Shakespeare,
# then the same tokens in random order, and random tokens of the vocabulary. What would one spoilt batch do to a
# training?

# %% tags=["payoff"]
model, tokenizer = smollm(torch.bfloat16)
speech = tokenizer(shakespeare()[20_000:20_600], return_tensors="pt").input_ids[:, :48]
g = torch.Generator().manual_seed(0)
TEXTS = {
    "Shakespeare": speech,
    "his words, shuffled": speech[:, torch.randperm(speech.shape[1], generator=g)],
    "random tokens": torch.randint(len(tokenizer), speech.shape, generator=g),
}
model.get_input_embeddings().requires_grad_(False)
norms = {}
try:
    for name, ids in TEXTS.items():
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        norms[name] = gradient_norms_by_layer(model, "model.layers")
finally:
    model.zero_grad()
    model.get_input_embeddings().requires_grad_(True)
del model

fig, ax = figure(width=8.6, height=3.5)
for (name, values), color, marker in zip(norms.items(), COLORS, "os^", strict=False):
    ax.plot(range(1, len(values) + 1), values, color=color, marker=marker, label=name)
ax.set(yscale="log", xlabel="layer", ylabel="norm of the gradient")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
usual = norms["Shakespeare"]
spread, jump = usual.max() / usual.min(), norms["random tokens"].norm() / usual.norm()
show(
    fig,
    alt="Norm of the gradient by layer of the real model, on a logarithmic axis. Smallest and largest layer: "
    + ", ".join(f"{name} {values.min():.2g} and {values.max():.2g}" for name, values in norms.items()) + ".",
    title=f"{len(usual)} layers within a factor of {spread:.0f}; random tokens: {jump:.1f} times the norm",
)

# %% [markdown]
# Look at the shape, not at the numbers: the fifty plain layers above were fresh, and we looked at the gradient at their
# activations; these are trained, and it is the gradient at their weights. An exponential would be a straight line here,
# too. Do you see one? If not: what keeps the model from it?
#
# ## Four activations, four sizes, four architectures
#
# Now the whole table: activation × initial weights × (nothing, BatchNorm, residual connection, residual connection with
# LayerNorm before each branch). Each panel shows, layer by layer, what is left of the gradient. One network a line.

# %% tags=["demo"]
STDS = {"std 0.03": 0.03, "Xavier": XAVIER, "He": HE, "std 0.3": 0.3}
BUILT = {
    "plain": {},
    "BatchNorm": {"norm": batch_norm},
    "residual": {"residual": True},
    "residual + LayerNorm": {"residual": True, "norm": layer_norm},
}
fig, axes = figure(4, 4, width=10.5, height=7.6, sharex=True, sharey=True)
healthy = dict.fromkeys(BUILT, 0)
for row, (kind, activation) in zip(axes, ACTIVATIONS.items(), strict=True):
    for ax, (name, options) in zip(row, BUILT.items(), strict=True):
        ax.axhspan(1e-2, 1e2, color="#bbbbbb", alpha=0.35, linewidth=0)
        for (label, std), color, style in zip(STDS.items(), COLORS, [":", "-", "--", "-."], strict=False):
            shares = travel(activation, std, **options)[1]
            healthy[name] += suits(shares)
            ax.plot(shares.clamp(1e-30, 1e30), color=color, linestyle=style, linewidth=1.6, label=label)
        ax.set(yscale="log", ylim=(1e-16, 1e16), yticks=[1e-12, 1e-6, 1, 1e6, 1e12])
    row[0].set_ylabel(f"{kind}\ngradient left")
for ax, name in zip(axes[0], BUILT, strict=True):
    ax.set_title(name)
for ax in axes[-1]:
    ax.set_xlabel("layer")
fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
show(
    fig,
    alt=f"Panels of activations by architectures: the share of the gradient left at each layer of {DEPTH}, for four "
    "sizes of the weights. Within the grey band on all layers: "
    + ", ".join(f"{name} {count} of 16" for name, count in healthy.items()) + ".",
    title="Level within 1/100 to 100 on all layers: " + ", ".join(
        f"{name} {count}/16" for name, count in healthy.items()
    ),
)

# %% [markdown]
# Read it by columns: how far apart do the four sizes lie? BatchNorm divides by the size of what comes in, so that of
# the weights cancels: the lines of the second column must lie together, but need not be level. In the third, with He's
# weights, every branch of a ReLU is as large as the stream, so that the stream's mean square doubles in each layer, or
# more.
#
# ## "BatchNorm and residual connections help"
#
# The notes list them side by side against vanishing. So take a net that does vanish, sigmoid with Xavier, and for
# comparison one that is well without any cure, ReLU with He, at depths that are in use today. Three seeds; the lines
# show the median. In "both" the norm stands before the branch.
#
# **Before the run:** the sentence is *correct* if each of the two alone brings the sigmoid's gradient back into the
# band, between 1/100 and 100, through all 80 layers in every seed, *imprecise* if one of them does, *wrong* if neither.
# *Unverifiable* if 1/100 arrives without either: then there was nothing to cure.

# %% claim="A08.5"
LAYERS = [5, 10, 20, 40, 80]
CURES = {
    "nothing": {},
    "BatchNorm": {"norm": batch_norm},
    "residual": {"residual": True},
    "both": {"residual": True, "norm": batch_norm},
}
fig, axes = figure(1, 2, width=10.4, height=3.6, sharey=True)
deepest, lowest, back = {}, {}, {}
for ax, (kind, std) in zip(axes, {"sigmoid": XAVIER, "ReLU": HE}.items(), strict=True):
    for (name, options), color, marker in zip(CURES.items(), COLORS, "xos^", strict=False):
        found = torch.tensor([
            [float(travel(ACTIVATIONS[kind], std, depth, seed=seed, **options)[1][0]) for seed in range(3)]
            for depth in LAYERS
        ], dtype=torch.float64)
        deepest[kind, name], lowest[kind, name] = float(found[-1].median()), float(found[-1].min())
        back[kind, name] = suits(found[-1])
        ax.fill_between(LAYERS, found.amin(1), found.amax(1), color=color, alpha=0.2, linewidth=0)
        ax.plot(LAYERS, found.median(1).values, color=color, marker=marker, label=name)
    ax.axhspan(1e-2, 1e2, color="#bbbbbb", alpha=0.35, linewidth=0)
    ax.set(yscale="log", ylim=(1e-20, 1e10), xlabel="layers", title=f"{kind}, {'Xavier' if std == XAVIER else 'He'}")
axes[0].set_ylabel("gradient that arrives")
axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
growth = deepest["ReLU", "BatchNorm"] ** (1 / LAYERS[-1])
show(
    fig,
    alt=f"The gradient that arrives against depth. At {LAYERS[-1]} layers: "
    + ", ".join(f"{kind} with {name} {share:.0e}" for (kind, name), share in deepest.items()) + ".",
    title=f"{LAYERS[-1]} layers. Sigmoid: {deepest['sigmoid', 'nothing']:.0e} alone, with BatchNorm "
    f"{deepest['sigmoid', 'BatchNorm']:.0e}, residual {deepest['sigmoid', 'residual']:.0e}.\n"
    f"ReLU: {deepest['ReLU', 'nothing']:.0e} alone, with BatchNorm {deepest['ReLU', 'BatchNorm']:.0e} "
    f"({growth:.2f} a layer), residual {deepest['ReLU', 'residual']:.0e}, both {deepest['ReLU', 'both']:.0e}",
)

brought = [name for name in ("BatchNorm", "residual") if back["sigmoid", name]]
verdict(
    "A08.5",
    "unverifiable" if lowest["sigmoid", "nothing"] > 1e-2 else ("wrong", "imprecise", "correct")[len(brought)],
    f"Of the sigmoid's gradient {deepest['sigmoid', 'nothing']:.0e} arrives through {LAYERS[-1]} layers alone; brought "
    f"back by {' and by '.join(brought) or 'neither'}. Of the ReLU network's {deepest['ReLU', 'nothing']:.1g} arrives "
    f"alone; there BatchNorm multiplies by {growth:.2f} a layer, a residual connection by "
    f"{deepest['ReLU', 'residual'] ** (1 / LAYERS[-1]):.2f}.",
)

# %% [markdown]
# What a residual connection changes: the Jacobian of a layer is $I + J$ instead of $J$ alone. The gradient has an
# *identity path* on which nobody multiplies it.
#
# But look at the ReLU panel, too. $I + J$ has a product of its own, and where $J$ isn't small it grows. And BatchNorm
# keeps the *signal* at its size; the gradient is another matter. Yang et al. (2019, arXiv:1902.08129) prove that it
# grows by about 1.2 a layer with ReLU, whatever the weights. Together the two can hold each other: the stream grows,
# the norm divides by its size, and so each further branch adds less. Is the line "both" in the band?
#
# ## "BatchNorm against explosion"
#
# The notes name BatchNorm a second time, as a cure for *exploding*. To see whether it is one it has to meet networks
# that explode: 50 layers whose weights are too large. The control is the network that is well without it.
#
# **Before the run:** *correct* if with BatchNorm between 1/100 and 100 of the gradient arrives in every seed of every
# network; *imprecise* if not, but it arrives at least a hundred times smaller than alone in every seed; *wrong* if not
# even that. *Unverifiable* if one of them doesn't explode alone, past 100 times in every seed.

# %% claim="A08.11"
EXPLODING = {
    "ReLU, std 0.3": ("ReLU", 0.3),
    "ReLU, std 0.5": ("ReLU", 0.5),
    "ReLU, std 1": ("ReLU", 1.0),
    "tanh, std 1": ("tanh", 1.0),
    "control: ReLU, He": ("ReLU", HE),
}
met = {
    name: {
        label: torch.stack([travel(ACTIVATIONS[kind], std, seed=seed, norm=norm)[1][0] for seed in range(3)])
        for label, norm in {"alone": nothing, "with BatchNorm": batch_norm}.items()
    }
    for name, (kind, std) in EXPLODING.items()
}
fig, ax = figure(width=9, height=3.2)
for row, found in enumerate(met.values()):
    for (label, shares), color, marker in zip(found.items(), COLORS, "os", strict=False):
        ax.plot(shares, [row] * 3, marker, color=color, alpha=0.7, label=label if row == 0 else None)
ax.axvspan(1e-2, 1e2, color="#bbbbbb", alpha=0.35, linewidth=0)
ax.set_yticks(range(len(met)), list(met))
ax.invert_yaxis()
ax.set(xscale="log", xlabel=f"gradient that arrives through {DEPTH} layers (three seeds)")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
middles = {name: {label: float(x.median()) for label, x in found.items()} for name, found in met.items()}
told = ", ".join(f"{name} {x['alone']:.0e} → {x['with BatchNorm']:.0e}" for name, x in middles.items())
*blown, control = met.values()
worst = max(float(found["with BatchNorm"].max()) for found in blown)
show(
    fig,
    alt=f"The gradient that arrives, alone and with BatchNorm, in the median: {told}.",
    title=f"Up to {max(float(x['alone'].max()) for x in blown):.0e} alone, with BatchNorm at most {worst:.0e};\n"
    f"in the control {float(control['alone'].median()):.1f} and {float(control['with BatchNorm'].median()):.0e}",
)
tamed = all(bool((found["with BatchNorm"] < found["alone"] / 100).all()) for found in blown)
explode = all(bool((found["alone"] > 1e2).all()) for found in blown)
level = all(suits(found["with BatchNorm"]) for found in blown)
word = "correct" if level else "imprecise" if tamed else "wrong"
verdict("A08.11", word if explode else "unverifiable", f"In the median: {told}.")

# %% [markdown]
# BatchNorm is *scale invariant*: twice the weights, the same output, and the gradient at the activations is divided by
# what it was multiplied with. So explosion that comes of large weights is taken away, however large they are. What is
# left is a mild exponential of its own, the 1.2 a layer of the ReLU panel, and it is there for good networks, too.
#
# ## How crowded is the road?
#
# A residual stream is a sum: $x_n = x_0 + \sum_i f_i$. With a norm before each branch, every branch says something of
# about the same size, and $n$ of them that don't agree add up to $\sqrt n$. After 100 branches the stream is ten times
# as large as at the start, and what the last one says hardly counts. GPT-2 therefore divides the weights at the end of
# each branch by $\sqrt n$ when it starts, where $n = 2L$ since each of the $L$ layers has two branches (Radford et al.
# 2019, section 2.3). At that moment it is the same as a factor in the forward pass:
#
# $$x_{i+1} = x_i + \frac{1}{\sqrt n} f_i(\mathrm{norm}(x_i)).$$
#
# Afterwards it isn't. Small weights can grow; a factor stays, and it also divides the gradient of the weights behind
# it. Adam doesn't see that, and moves them as far as ever, so the branch's *output* moves $\sqrt n$ times less.
# Depth-µP (Yang et al. 2023, arXiv:2310.02244) keeps the factor on purpose and divides Adam's rate by $\sqrt n$, too,
# so that one base rate suits every depth, where a branch has one layer. For branches of several, as Transformers have
# them, CompleteP (Dey et al. 2025, arXiv:2505.01618) divides by $n$ and leaves the rate as it is. You build the form
# with $\sqrt n$.
#
# ## Exercise 4: a stack of any depth

# %% exercise="residual_stack"
def residual_stack(x, branches, eps=1e-5):
    """Run a stream through pre-norm branches that are scaled for their number.

    x:        floating-point tensor [..., d], with any number of leading (batch) dimensions
    branches: a list of n >= 1 functions from a tensor [..., d] to a tensor [..., d]
    eps:      is added to the variance in the norm
    Stream 0 is x. Stream i + 1 is stream i plus branches[i](norm(stream i)) / sqrt(n). The norm
    is a LayerNorm without weights: over the last dimension subtract the mean and divide by
    sqrt(variance + eps), where the variance divides by d.
    Returns all streams, [n + 1, ..., d], of the dtype of x. Gradients reach x on every way; x
    itself isn't changed.

    Yang et al. 2023, arXiv:2310.02244 (depth-µP); as initial weights: Radford et al. 2019
    ("Language Models are Unsupervised Multitask Learners"), section 2.3.
    """
    ### BEGIN SOLUTION
    streams = [x]
    for branch in branches:
        normed = F.layer_norm(streams[-1], x.shape[-1:], eps=eps)
        streams.append(streams[-1] + branch(normed) / math.sqrt(len(branches)))
    return torch.stack(streams)
    ### END SOLUTION


# %% check="residual_stack"
check(residual_stack)

# %% [markdown]
# Your stack with 12, 48 and 192 random branches, beside one that isn't scaled. And a look into transformers' own GPT-2:
# do its fresh weights follow the rule?

# %% tags=["payoff"]
from transformers import GPT2Config, GPT2LMHeadModel


def random_branches(count, seed):
    g = torch.Generator().manual_seed(seed)
    pairs = [torch.randn(2, WIDTH, WIDTH, generator=g) * HE for _ in range(count)]
    return [lambda z, w=w: torch.relu(z @ w[0].T) @ (w[1].T * 2**-0.5) for w in pairs]


start = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(9))
fig, ax = figure(width=8.4, height=3.5)
last = {}
for count, color in zip((12, 48, 192), COLORS, strict=False):
    branches = random_branches(count, count)
    mine = residual_stack(start, branches)
    unscaled = [start]
    for branch in branches:
        unscaled.append(unscaled[-1] + branch(layer_norm(unscaled[-1])))
    for streams, style, name in ((mine, "-", "yours"), (torch.stack(unscaled), "--", "not scaled")):
        sizes = streams.square().mean((1, 2)).sqrt()
        last[name, count] = float(sizes[-1])
        ax.plot(torch.linspace(0, 1, count + 1), sizes, color=color, linestyle=style,
                label=f"{count} branches, {name}")
ax.set(yscale="log", xlabel="place in the stack (0: input, 1: output)", ylabel="size of the stream (RMS)")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show(
    fig,
    alt="Size of the residual stream along stacks of branches. At the end: "
    + ", ".join(f"{name}, {count} branches: {size:.1f}" for (name, count), size in last.items()) + ".",
    title="At the end of 12, 48, 192 branches: " + "; ".join(
        f"{name} {', '.join(f'{last[name, n]:.1f}' for n in (12, 48, 192))}" for name in ("yours", "not scaled")
    ),
)
for n_layer in (3, 12):
    torch.manual_seed(0)
    gpt = GPT2LMHeadModel(GPT2Config(
        n_layer=n_layer, n_embd=64, n_head=2, vocab_size=100, n_positions=16, bos_token_id=None, eos_token_id=None
    ))
    ends = torch.cat([p.flatten() for n, p in gpt.named_parameters() if n.endswith("c_proj.weight")])
    print(f"GPT-2 with {n_layer:2} layers: std of the branches' last weights {ends.std():.5f}, "
          f"0.02 / sqrt(2 · {n_layer}) = {0.02 / math.sqrt(2 * n_layer):.5f}")

# %% [markdown]
# ## Clipping, and what it does to the direction
#
# Some gradients are large because one batch is strange, and no initialization helps there. You have built clipping by
# *norm* in the chapter on the training recipe: the whole gradient gets shorter and keeps its direction. The other kind,
# clipping by *value*, cuts every entry off at $\pm c$. It needs no sum over all parameters. What does it cost?
#
# The price is the direction. Cut $(3, 4)$ at 3 and you get $(3, 3)$. We measure it by the cosine of the angle between
# the gradient before and after: 1 is no turn.
#
# ## Exercise 5: clip by value

# %% exercise="clip_by_value"
def clip_by_value(gradients, limit):
    """Cut every entry off at the limit, and tell how far that has turned the gradient.

    gradients: a list of floating-point tensors of any shape; None where a parameter took no
               part. Entries are finite, and may be as large as 1e30 or as small as 1e-30 in
               float32: their squares aren't, so compute the cosine in float64
    limit:     a float above 0
    Returns (clipped, cosine). clipped: a list of new tensors with every entry between -limit
    and limit, entries within stay as they are; each of its own dtype, None stays None. cosine:
    a float, or a tensor of no dimension: that of the angle between all gradients as one long
    vector before, and after. Where all entries are zero, or there are none, nothing is turned:
    1.

    Pascanu et al. 2013, arXiv:1211.5063, section 3.2, names both kinds. Not with
    clip_grad_value_.
    """
    ### BEGIN SOLUTION
    clipped = [None if g is None else g.clamp(-limit, limit) for g in gradients]
    before, after = (
        torch.cat([g.flatten().double() for g in part if g is not None] or [torch.zeros(0)])
        for part in (gradients, clipped)
    )
    cosine = before @ after / (before.norm() * after.norm()) if before.any() else 1.0
    return clipped, cosine
    ### END SOLUTION


# %% check="clip_by_value"
check(clip_by_value)

# %% [markdown]
# Real gradients: the ones of a network of eight layers on digits, at five random beginnings. The limit falls from one
# that touches nothing to a ten-thousandth of it.

# %% tags=["payoff"]
eight = drawn([64] * 8 + [10], [None] * 5, range(5))
logits = hidden_inputs(eight, images[:256], torch.relu)[-1]
total = F.cross_entropy(logits.mT, labels[:256].expand(5, -1), reduction="none").mean(1).sum()
of_runs = [[g[run] for g in torch.autograd.grad(total, eight, retain_graph=True)] for run in range(5)]
SHARES = torch.logspace(0, -4, 17)
turned, touched = torch.zeros(5, 17), torch.zeros(5, 17)
for run, gradients in enumerate(of_runs):
    flat_one = torch.cat([g.flatten() for g in gradients]).abs()
    for i, share in enumerate(SHARES):
        limit = float(share * flat_one.max())
        cosine = float(clip_by_value(gradients, limit)[1])
        turned[run, i] = math.degrees(math.acos(min(1.0, cosine)))
        touched[run, i] = 100 * (flat_one > limit).float().mean()

fig, ax = figure(width=8.4, height=3.5)
ax.plot(SHARES, turned.T, color=COLORS[0], linewidth=1)
ax.plot(SHARES, turned.mean(0), color=COLORS[0], marker="o", label="by value, five networks")
ax.axhline(0, color=COLORS[1], linestyle="--", label="by norm, at any limit")
ax.set(xscale="log", xlabel="limit, as a share of the largest entry", ylabel="turn of the gradient (degrees)")
ax.invert_xaxis()
ax.legend(loc="upper left")
tenth = int((SHARES - 0.1).abs().argmin())
show(
    fig,
    alt="Angle by which clipping by value turns real gradients, against the limit: "
    f"{turned[:, 0].mean():.0f}° at the largest, {turned[:, -1].mean():.0f}° at the smallest. By norm: a line at zero.",
    title=f"A limit at a tenth of the largest entry touches {touched[:, tenth].mean():.1f} % of the entries "
    f"and turns by {turned[:, tenth].mean():.0f}°",
)

# %% [markdown]
# The entries that are touched are the largest, so a few of them may turn the whole. Whether that hurts is an empirical
# question (an optimizer that uses only signs does train). Language models mostly clip the global norm, at 1.0 (GPT-3:
# Brown et al. 2020, arXiv:2005.14165, appendix B), and keep the direction.
#
# Mind the type. `clip_grad_norm_` (torch 2.13) takes the norm in the gradients' own type: in float16 a norm above
# 65,504 is infinite, one over it is 0, and all gradients become 0 without a word. Unscale the gradients and clip them
# in float32.
#
# ## "A smaller learning rate avoids explosion"
#
# Two things get confused here. A rate that is too high makes the *weights* run away, and their gradients with them. But
# a network whose gradients explode by its construction has them at given weights, before any step, whatever the rate
# (the right panel shows it). Does a small rate help *there*?
#
# Twelve layers, three beginnings of each kind: He; weights of std 0.5; and those once more with clipping by norm at 1.
# Every run has its own rate. We look at the accuracy after 80 steps and at the gradient's norm in the very first one.
#
# **Before the run:** the sentence is *correct* if a smaller rate saves runs of He's kind that go wrong at a higher one
# (over 20 points more right at the best rate than at the highest) *and* brings those of std 0.5, not clipped, to within
# 10 points of He's best; *imprecise* if only the first; *wrong* if not even that. (A first run had been seen when 20
# points became 10.)

# %% claim="A08.9"
POWERS = [-8, -7, -6, -5, -4, -3, -2, -1, 0]
each = torch.tensor([10.0**p for p in POWERS]).repeat_interleave(3)
BEGINNINGS = {"He": (None, None), "std 0.5": (0.5, None), "std 0.5, clipped": (0.5, 1.0)}
fig, (left, right) = figure(1, 2, width=10.4, height=3.6, sharex=True)
top, first_norm = {}, {}
for (name, (std, limit)), color, marker in zip(BEGINNINGS.items(), COLORS, "os^", strict=False):
    net = drawn([64] * 12 + [10], [std] * len(each), [i % 3 for i in range(len(each))])
    _, lengths = learn(net, 80, each, limit=limit)
    with torch.no_grad():
        answers = hidden_inputs(net, images[TESTED], torch.relu)[-1]
    right_ones = (answers.argmax(-1) == labels[TESTED]).float().mean(1) * answers.isfinite().all(-1).all(-1)
    accuracy = 100 * right_ones.view(len(POWERS), 3)
    at = int(accuracy.mean(1).argmax())
    if name == "He":
        saved = float(accuracy[at].mean() - accuracy[-1].mean())
    top[name], first_norm[name] = (float(accuracy[at].mean()), POWERS[at]), lengths[0].view(-1, 3)
    rates = [10.0**p for p in POWERS]
    left.plot(rates, accuracy, color=color, marker=marker, linestyle="none", alpha=0.4)
    left.plot(rates, accuracy.mean(1), color=color, marker=marker, label=name)
    if limit is None:
        right.plot(rates, first_norm[name].mean(1), color=color, marker=marker, label=name)
left.axhline(10, color="#777777", linestyle=":", linewidth=1)
left.set(xscale="log", xlabel="learning rate", ylabel="accuracy after 80 steps, %\n(0: NaN)", ylim=(-4, 104))
right.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="norm of the first gradient")
left.legend(loc="upper left")
right.legend(loc="center left")
same = all(torch.allclose(norms, norms[:1], rtol=1e-4) for norms in first_norm.values())
show(
    fig,
    alt="Left: accuracy against the learning rate, for networks of 12 layers; the best: "
    + ", ".join(f"{name} {a:.0f} % at 1e{p}" for name, (a, p) in top.items()) + ". Right, the norm of the first "
    "gradient: " + ", ".join(f"{name} {norms.mean():.0e}" for name, norms in first_norm.items()) + ".",
    title=f"First gradient: {'the same at every rate' if same else 'it depends on the rate'}.\nBest accuracy: "
    + ", ".join(f"{name} {a:.0f} % (rate 1e{p})" for name, (a, p) in top.items()),
)

missing = top["He"][0] - top["std 0.5"][0]
edge = [name for name, (_, power) in top.items() if power in (POWERS[0], POWERS[-1])]
verdict(
    "A08.9",
    "wrong" if saved <= 20 else "correct" if missing < 10 else "imprecise",
    f"The first gradient is {'the same at every rate' if same else 'not the same at every rate'}. Of He's networks the "
    f"best rate gets {saved:.0f} points more right than rate {rates[-1]:g}. In 80 steps, each at its best rate: "
    + ", ".join(f"{name} {a:.0f} %" for name, (a, _) in top.items())
    + f". Best at the lowest or highest rate tried: {', '.join(edge) or 'none'}.",
)

# %% [markdown]
# At given weights the gradient is what it is; the rate isn't in it. Where training blows up because the *steps* are too
# long, a smaller rate is the cure. Where the gradient is large by construction, does a small rate do anything but avoid
# NaN? (How much is learned in the end these 80 steps can't tell: small rates always learn little in a few.) Set the
# clipped runs beside it: clipping, too, only shortens the steps. The cause is repaired by initialization, norms and
# residual connections.
#
# ## "Adam and RMSProp avoid explosion"
#
# They divide by a running root mean square of the gradient: $\Delta = -\eta\, m / (\sqrt v + \epsilon)$. So a step is
# about as long as $\eta$, however large the gradient *always* is. But what if it is large *once*?
#
# Then $v$ holds $(1 - \beta_2) s^2$ of a spike of size $s$, and loses a factor $\beta_2$ a step. It is back among
# squares of 1 after about $\ln\big((1-\beta_2)\, s^2\big) / (1 - \beta_2)$ steps. That is **not** $1/(1-\beta_2)$, as
# one often hears: the logarithm of a spike of a million is in it.
#
# Left: a gradient of 1 in every step, but for one of a million; how long until a step has half its old length again?
# Right: four layers on digits under Adam at a rate of 0.003, where one batch comes with pixels a million times too
# bright.
#
# **Before the run:** *correct* if no step is longer than twenty times $\eta$ (the formula allows ten) *and* the bad
# batch does no lasting harm: the loss of the last ten steps isn't surely above that of the same seed undisturbed (95 %
# interval over five seeds). *Imprecise* if one of the two fails, *wrong* if both.

# %% claim="A08.10"
SPIKE, AFTER, BAD = 20, 25_000, 40


def steps_of(make, spike=1e6, limit=None):
    """The length of each step of a single weight, in units of the rate, until one is back at half; and the weight."""
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer, taken = make([weight]), []
    for step in range(SPIKE + AFTER):
        gradient = spike if step == SPIKE else 1.0
        weight.grad = torch.full_like(weight, gradient if limit is None else min(gradient, limit))
        before = weight.item()
        optimizer.step()
        taken.append(abs(weight.item() - before) / 0.1)
        if step > SPIKE + 200 and not taken[-1] < 0.5:
            break
    return taken, weight.item()


MAKERS = {
    "Adam": lambda w, lr=0.1: torch.optim.Adam(w, lr),
    "Adam, β₂ = 0.95": lambda w, lr=0.1: torch.optim.Adam(w, lr, betas=(0.9, 0.95)),
    "RMSprop": lambda w, lr=0.1: torch.optim.RMSprop(w, lr),
}
lengths = {name: steps_of(make)[0] for name, make in MAKERS.items()}
lengths["Adam, clipped at 1"] = steps_of(MAKERS["Adam"], limit=1.0)[0]
back = {name: max((i for i, x in enumerate(of[SPIKE:], 1) if x < 0.5), default=0) for name, of in lengths.items()}
lost = [name for name, make in MAKERS.items() if math.isnan(steps_of(make, spike=math.nan)[1])]


def glare(step, x):
    return x * 1e6 if step == BAD else x


COURSES = {
    "no bad batch": {},
    "bad batch": {"spoil": glare},
    "bad batch, clipped at 1": {"spoil": glare, "limit": 1.0},
}
curves = {}
for name, options in COURSES.items():
    net = drawn([64, 64, 64, 64, 10], [None] * 5, range(5))
    losses, _ = learn(net, 120, 3e-3, make=torch.optim.Adam, **options)
    curves[name] = torch.cat([losses[:BAD], losses[BAD + 1 :]])  # the bad batch itself isn't the question

fig, (left, right) = figure(1, 2, width=10.6, height=3.7)
for (name, taken), color, style in zip(lengths.items(), COLORS, ["-", "--", "-.", ":"], strict=False):
    left.plot(range(1, len(taken) - SPIKE + 1), taken[SPIKE:], color=color, linestyle=style, label=name)
left.set(xscale="log", yscale="log", xlabel="steps since the spike", ylim=(1e-6, 1e5),
         ylabel="length of the step\n(in units of the rate)")
left.legend(loc="upper right", fontsize=9)
for (name, losses), color, style in zip(curves.items(), [COLORS[2], COLORS[1], COLORS[0]], ":--", strict=False):
    smooth = losses.unfold(0, 8, 1).mean(-1).median(1).values
    right.plot(range(8, 120), smooth, color=color, linestyle=style, label=name)
right.axvline(BAD, color="#777777", linestyle=":", linewidth=1)
right.set(yscale="log", xlabel="step (the bad batch left out)", ylabel="training loss (nats),\nmedian of five seeds")
right.legend(loc="upper right", fontsize=9)
final = {name: float(losses[-10:].mean(0).median()) for name, losses in curves.items()}
ended = "; ".join(f"{name} {value:.2g}" for name, value in final.items())
show(
    fig,
    alt="Left: the length of the optimizers' steps after a single large gradient; back at half the rate after "
    + ", ".join(f"{count:,} steps ({name})" for name, count in back.items())
    + f". Right, training loss in the end: {ended}.",
    title=f"Half its step again: Adam after {back['Adam']:,} steps, with β₂ = 0.95 after {back['Adam, β₂ = 0.95']:,}.\n"
    f"Loss in the end: {ended}",
)
longest = {name: max(lengths[name]) for name in MAKERS}
harm, clipped = (
    interval((curves[name][-10:].mean(0) - curves["no bad batch"][-10:].mean(0)).tolist())
    for name in ("bad batch", "bad batch, clipped at 1")
)
verdict(
    "A08.10",
    ("wrong", "imprecise", "correct")[(max(longest.values()) <= 20) + (not harm.above(0))],
    f"Longest steps: {', '.join(f'{name} {x:.0f}' for name, x in longest.items())} times the rate. The bad batch "
    f"changes the loss in the end by "
    f"{harm.text('+.2f')} nats, clipped by {clipped.text('+.2f')}. After a single NaN in the gradient the weight is "
    f"NaN "
    f"for good: {', '.join(lost) or 'nowhere'}.",
)

# %% [markdown]
# The formula bounds the step (Kingma and Ba 2015, section 2.1), and the run may still be spoilt: $m$ goes on in the
# direction of the bad batch for a dozen steps, and then $v$ remembers the square of the spike. Language models are
# mostly trained with $\beta_2 = 0.95$, a memory that is shorter. One NaN is for ever, since it stands in $m$ and $v$
# and no later gradient washes it out. So large trainings clip before the optimizer, skip steps that aren't finite, and
# keep checkpoints to go back to.
#
# ## What can explode in language models: logits
#
# In a Transformer there is a place where things can explode *in training*: the attention logits $q \cdot k / \sqrt d$.
# They are a product of two learned projections. As those grow, the softmax becomes a hard choice of one token, and its
# gradient goes to zero: saturation, at the heart of the model. The norm *before* the projections bounds what goes into
# them, not the projections.
#
# Where can a bound stand? *Behind* the projections: **QK-norm** normalizes every query and key (Henry et al. 2020,
# arXiv:2010.04245; at scale Dehghani et al. 2023, arXiv:2302.05442), **soft-capping** replaces a logit $z$ by $c
# \tanh(z/c)$ (Gemma 2, arXiv:2408.00118, uses $c = 50$ in attention; here 20; Gemma 3 replaced it by QK-norm,
# arXiv:2503.19786). Or *on* the projections: weight decay, or Kimi K2's **QK-clip**, which shrinks a head's weights
# where its largest logit has passed a limit (arXiv:2507.20534).
#
# We train a small GPT on Shakespeare at a moderate and at a high rate, two seeds each, all clipped at norm 1: with
# LayerNorm, with BatchNorm in its place before the branches, and with LayerNorm and one of three bounds.

# %% tags=["demo"]
letters = torch.tensor(list(shakespeare()[:300_000].encode("ascii", "replace")))
D, N, HEADS = 64, 32, 2


class Layer(nn.Module):
    """Attention and MLP, with `norm` before both and something done to queries, keys or logits."""

    def __init__(self, norm, qk_norm=False, cap=None):
        super().__init__()
        self.norm1, self.norm2, self.cap, self.largest = norm(D), norm(D), cap, 0.0
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))
        self.qk = nn.LayerNorm(D // HEADS) if qk_norm else nn.Identity()

    def forward(self, x):
        heads = self.qkv(over_features(self.norm1, x)).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2)
        q, k, v = heads.chunk(3, 1)
        logits = self.qk(q) @ self.qk(k).mT / math.sqrt(D // HEADS)
        if self.cap:
            logits = self.cap * torch.tanh(logits / self.cap)
        self.largest = float(logits.detach().tril().abs().max())  # of the pairs that the mask leaves
        seen = logits.masked_fill(torch.ones(N, N, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
        x = x + self.out((seen @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(over_features(self.norm2, x))


def over_features(norm, x):
    """BatchNorm1d wants the features in dimension 1, LayerNorm wants them last."""
    return norm(x.mT).mT if isinstance(norm, nn.BatchNorm1d) else norm(x)


def trained(rate, seed, steps=40, clip=None, **kind):
    """The mean loss of the last ten steps, and the largest attention logit of the last one."""
    torch.manual_seed(seed)
    layers = [Layer(**kind) for _ in range(2)]
    model = nn.Sequential(nn.Embedding(128, D), *layers, nn.LayerNorm(D), nn.Linear(D, 128, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    g, losses = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        places = torch.randint(len(letters) - N - 1, (8, 1), generator=g) + torch.arange(N + 1)
        pieces = letters[places]
        loss = F.cross_entropy(model(pieces[:, :-1]).mT, pieces[:, 1:])
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        for layer in layers:
            if clip and layer.largest > clip:  # for all heads at once; Kimi K2 does it for each
                with torch.no_grad():
                    layer.qkv.weight[: 2 * D].mul_(math.sqrt(clip / layer.largest))
    return sum(losses[-10:]) / 10, max(layer.largest for layer in layers)


MODELS = {
    "LayerNorm": {"norm": nn.LayerNorm},
    "BatchNorm": {"norm": nn.BatchNorm1d},
    "LayerNorm + QK-norm": {"norm": nn.LayerNorm, "qk_norm": True},
    "LayerNorm + soft cap": {"norm": nn.LayerNorm, "cap": 20.0},
    "LayerNorm + QK-clip": {"norm": nn.LayerNorm, "clip": 20.0},
}
HIGH = [1e-2, 1e-1]
outcome = {(n, r): [trained(r, s, **kind) for s in range(2)] for n, kind in MODELS.items() for r in HIGH}
fig, (left, right) = figure(1, 2, width=10.2, height=3.2, sharey=True)
for row, name in enumerate(MODELS):
    for rate, color, marker, shift in zip(HIGH, COLORS, "os", (-0.12, 0.12), strict=False):
        found = torch.tensor(outcome[name, rate])
        for ax, values in zip((left, right), found.T, strict=True):
            ax.scatter(values, [row + shift] * len(values), color=color, marker=marker,
                       label=f"rate {rate:g}" if row == 0 else None)
left.set_yticks(range(len(MODELS)), list(MODELS))
left.invert_yaxis()
left.set(xlabel="training loss after 40 steps (nats a letter)")
right.set(xscale="log", xlabel="largest attention logit")
right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
at_high = {name: torch.tensor(outcome[name, HIGH[-1]]).mean(0) for name in MODELS}
show(
    fig,
    alt=f"Training loss and largest attention logit at two learning rates, two seeds each. At rate {HIGH[-1]:g}: "
    + ", ".join(f"{name} loss {x[0]:.2f}, logit {x[1]:,.0f}" for name, x in at_high.items()) + ".",
    title=f"At rate {HIGH[-1]:g}, largest logit: " + ", ".join(
        f"{name.removeprefix('LayerNorm + ')} {x[1]:,.0f}" for name, x in at_high.items()
    ) + "\nloss: " + ", ".join(
        f"{name.removeprefix('LayerNorm + ')} {x[0]:.2f}" for name, x in at_high.items()
    ),
)

# %% [markdown]
# In the loss look first at how far apart the dots of one row lie, then at the rows: two seeds of 40 steps say how large
# the logits get, and little about which bound is best. A bound by QK-norm is one up to its learned gain, which may
# grow, too. Wortsman et al. (2023, arXiv:2309.14322) run this experiment at many sizes: instabilities of large models
# show in small ones at high rates, where QK-norm helps.
#
# Language models aren't built with BatchNorm; that it mixes the examples of a batch, and the future into the past,
# is the subject of the chapter on normalization.
#
# ## What to remember
#
# * The gradient is a product of one factor a layer. Initialization makes the factor 1 at the start, for a *matching*
#   pair of activation and scheme: tanh and Xavier, ReLU and He. A sigmoid's slope of at most ¼ is in neither.
# * ReLU is flat on one side, where units can die; its other side has slope 1.
# * Residual connections give the gradient an identity path; a norm before each branch and $1/\sqrt{2L}$ keep the sum in
#   bounds. Without a norm the stream can explode. BatchNorm takes away explosion that comes of large weights, and adds
#   a mild one of its own.
# * Clip by norm: by value turns the direction. A smaller rate and Adam bound the *step*, not the gradient. A spike
#   stays in Adam's memory for $\ln((1-\beta_2)s^2)/(1-\beta_2)$ steps, a NaN for ever.
# * In language models watch the attention logits. What bounds them: QK-norm, a soft cap, QK-clip, weight decay.
# * For the output's logits there is **z-loss**: a small price on the squared logarithm of the softmax's denominator.
#   And where the loss jumps all the same, large runs go back to a checkpoint and skip the batches around the jump; PaLM
#   did both (Chowdhery et al. 2022, [arXiv:2204.02311](https://arxiv.org/abs/2204.02311)).
# * Look at norms by layer before you choose a cure.
#
# **Sources.** Glorot and Bengio 2010 (AISTATS); He et al. 2015, [arXiv:1502.01852](https://arxiv.org/abs/1502.01852)
# and [arXiv:1512.03385](https://arxiv.org/abs/1512.03385); Pascanu et al. 2013,
# [arXiv:1211.5063](https://arxiv.org/abs/1211.5063); Kingma and Ba 2015,
# [arXiv:1412.6980](https://arxiv.org/abs/1412.6980); Yang et al. 2019,
# [arXiv:1902.08129](https://arxiv.org/abs/1902.08129); Radford et al. 2019 (GPT-2); Yang et al. 2023,
# [arXiv:2310.02244](https://arxiv.org/abs/2310.02244); Dey et al. 2025,
# [arXiv:2505.01618](https://arxiv.org/abs/2505.01618); Henry et al. 2020,
# [arXiv:2010.04245](https://arxiv.org/abs/2010.04245); Dehghani et al. 2023,
# [arXiv:2302.05442](https://arxiv.org/abs/2302.05442); Gemma 2, [arXiv:2408.00118](https://arxiv.org/abs/2408.00118);
# Wortsman et al. 2023, [arXiv:2309.14322](https://arxiv.org/abs/2309.14322); Kimi K2,
# [arXiv:2507.20534](https://arxiv.org/abs/2507.20534).
