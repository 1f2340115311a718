# ---
# jupyter:
#   course:
#     title: "Tensor parallelism: one layer on several ranks"
#     exercises: data_parallel.tensor_parallel
#     questions: [D03]
#     needs: [01_transformer/01_attention, 01_transformer/05_normalization, 03_data_parallel/02_all_reduce]
# ---

# %% [markdown]
# # Tensor parallelism: one layer on several ranks
#
# The MLP of a single layer of Llama 3 405B has three matrices of 16,384 × 53,248 numbers: 5.2 GB in bfloat16, in each
# of 126 layers. Data parallelism copies them to every GPU. FSDP keeps a part of them on each, but gathers a layer
# whole before it is used. Pipeline parallelism gives the layer to one GPU.
#
# **Tensor parallelism** cuts *inside* the layer. Each GPU holds a part of every matrix, computes with that part, and
# no GPU ever sees a whole one. The price is talk in every layer, forwards and backwards. The art is to cut so that
# there is little of it, and Megatron-LM (Shoeybi et al. 2019, [arXiv:1909.08053](https://arxiv.org/abs/1909.08053))
# found the cut that libraries use to this day.
#
# In this chapter you build it: the two borders of a parallel region, the two ways to cut a matrix, an MLP, attention by
# heads, a loss that never sees all logits, and sequence parallelism. On the way a layer of a real chat model runs on
# your code, on two ranks and on three, and we look whether it gives the logits that it gives on one.
#
# The ranks are processes that share one computer's cores, so **no speed-up can be seen here**. Values, gradients, what
# each rank holds and every message can, and that is what the checks look at. Where time matters we use a model, and say
# so.

# %% tags=["setup"]
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, figure, give_back, interval, launch, record_traffic, show, smollm, verdict

# %% [markdown]
# ## Two ways to cut a matrix
#
# A linear layer is $y = W x$, with $W$ of [outputs, inputs], as torch stores it. Cut it for two ranks:
#
# * **by outputs**: each rank has some rows of $W$, needs all of $x$, and computes some entries of $y$, finished;
# * **by inputs**: each rank has some columns of $W$, needs only its part of $x$, and computes some *terms* of every
#   entry of $y$. These have to be added up.
#
# Megatron writes $y = xA$ with $A = W^\top$. So cutting outputs is called **column-parallel** and cutting inputs
# **row-parallel**: columns and rows of $A$.

# %% tags=["demo"]
torch.manual_seed(1)
small_w, small_x = torch.randint(-3, 4, (6, 4)), torch.randint(-3, 4, (4,))
products = small_w * small_x
halves = products[:, :2].sum(1), products[:, 2:].sum(1)
same = bool((halves[0] + halves[1] == small_w @ small_x).all())


def cell(ax, column, row, number, rank):
    color = "#eeeeee" if rank is None else (COLORS[0], COLORS[1])[rank]
    ax.add_patch(plt.Rectangle((column, -row), 0.92, 0.92, facecolor=color, alpha=1 if rank is None else 0.32))
    ax.text(column + 0.46, -row + 0.46, int(number), ha="center", va="center")


import matplotlib.pyplot as plt

fig, axes = figure(1, 2, width=10, height=4.2)
for ax, by_outputs in zip(axes, (True, False), strict=True):
    for j in range(4):
        cell(ax, j, -1.4, small_x[j], None if by_outputs else int(j >= 2))
        for i in range(6):
            cell(ax, j, i, small_w[i, j], int(i >= 3) if by_outputs else int(j >= 2))
    for i in range(6):
        if by_outputs:
            cell(ax, 5, i, halves[0][i] + halves[1][i], int(i >= 3))
        else:
            cell(ax, 5, i, halves[0][i], 0)
            cell(ax, 6.4, i, halves[1][i], 1)
            cell(ax, 8, i, halves[0][i] + halves[1][i], None)
    ax.text(-0.3, 1.86, "x", ha="right", va="center", fontsize=12)
    ax.text(-0.3, -2.1, "W", ha="right", va="center", fontsize=12)
    if by_outputs:
        ax.text(5.46, 1.2, "y", ha="center", fontsize=12)
    else:
        for place, text in ((5.46, "terms of\nrank 0"), (6.86, "terms of\nrank 1"), (8.46, "sum, y")):
            ax.text(place, 1.15, text, ha="center", fontsize=9)
        ax.text(6.16, -2.1, "+", ha="center", va="center", fontsize=13)
        ax.text(7.66, -2.1, "=", ha="center", va="center", fontsize=13)
    ax.set(xlim=(-1, 9.2), ylim=(-5.3, 2.6), title="by outputs: column-parallel" if by_outputs else
           "by inputs: row-parallel")
    ax.axis("off")
show(fig, "Two pictures of a matrix with its input above and its output at the right, blue what rank 0 has, orange "
          "what rank 1 has. By outputs the matrix is cut into upper and lower rows, and so is the output; the input is "
          "whole. By inputs the matrix is cut into left and right columns, and so is the input; each rank has a column "
          f"of terms, and the two columns {'add' if same else 'do not add'} up to the output.",
     title=f"Blue is rank 0, orange rank 1: the terms {'add' if same else 'do not add'} up to y")

# %% [markdown]
# Now put one behind the other. A column-parallel layer leaves each rank with *some hidden units, finished*. That is
# exactly what a row-parallel layer wants as its input. An activation function between them acts on each unit by itself.
# So **column, activation, row needs no message in between**, and one sum at the end.
#
# ## What is said backwards
#
# Forwards, $x$ goes into the region as it is (all ranks have it), and the ranks' terms are added up where the result
# leaves. Backwards it is the other way round:
#
# * The result $y = \sum_r y_r$ is a sum, and the gradient of a sum is 1 for each of its terms. All ranks have the same
#   gradient of $y$ already. **Nothing to say.**
# * Each rank's part of the layer has read $x$, and sends back *its* part of the gradient. The gradient of $x$ is
#   $\sum_r \partial L_r/\partial x$: **one all-reduce**.
#
# | | forwards | backwards | Megatron's name |
# |---|---|---|---|
# | where $x$ enters | nothing | all-reduce | $f$ |
# | where $y$ leaves | all-reduce | nothing | $g$ |
#
# ## 1. The two borders
#
# ### Exercise: enter and leave
#
# autograd knows nothing about `dist.all_reduce`. So each border is a `torch.autograd.Function` of your own: its
# `forward` says what happens on the way out, its `backward` what happens to the gradient.
#
# One detail bites real programs. `all_reduce` works **in place**. The tensor that `backward` is given may belong to
# somebody else as well: at a residual connection $x + h$ one and the same gradient goes to both branches.

# %% exercise="Region"
class Region:
    """The two borders of a region in which every rank computes a part of a layer.

    Region.enter(x): for an x that is the same on all ranks. Gives x's values, of x's shape and
        dtype; nothing is sent forwards. Backwards x gets the sum over the ranks of the
        gradients that arrive: one all_reduce of x's size (none where x needs no gradient).
    Region.leave(x): for the ranks' different terms of one sum. Gives the sum over the ranks, of
        x's shape and dtype and with the same bits on all ranks: one all_reduce of x's size.
        Backwards x gets the gradient that arrives, as it is, and nothing is sent.

    x is a floating-point tensor of any shape, also without dimensions or not contiguous; the
    gradient may not be contiguous either, while all_reduce wants tensors that are. x and the
    arriving gradient are not changed: others may still need them.
    Nothing else of torch.distributed is called. f and g of Shoeybi et al. 2019,
    arXiv:1909.08053; copy_to_… and reduce_from_tensor_model_parallel_region of Megatron-LM.
    """

    @staticmethod
    def enter(x):
        ### BEGIN SOLUTION
        class Enter(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.view_as(x)

            @staticmethod
            def backward(ctx, gradient):
                total = gradient.clone(memory_format=torch.contiguous_format)
                dist.all_reduce(total)
                return total

        return Enter.apply(x)
        ### END SOLUTION

    @staticmethod
    def leave(x):
        ### BEGIN SOLUTION
        class Leave(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                total = x.clone(memory_format=torch.contiguous_format)
                dist.all_reduce(total)
                return total

            @staticmethod
            def backward(ctx, gradient):
                return gradient

        return Leave.apply(x)
        ### END SOLUTION

# %% check="Region"
check(Region)

# %% [markdown]
# Forwards `enter` says nothing to anybody, so it runs right here, without any ranks. Only the graph tells that
# something waits for the gradient.

# %% tags=["payoff"]
x = torch.arange(3.0, requires_grad=True)
entered = Region.enter(x)
print(f"the same numbers: {torch.equal(entered, x)}; in the graph stands {entered.grad_fn.name()}")

# %% [markdown]
# ### What if it is forgotten?
#
# What happens to somebody who leaves out the all-reduce of `enter`? Forwards everything is right, to the last bit. We
# play two ranks in one process: a small network whose first layer stands, whole, on both ranks, and whose MLP is cut in
# two. In the wrong run each rank's copy of the first layer learns from its own part alone. (One rate for both runs,
# and ten seeds: with five it stayed open what the saved model loses.)

# %% tags=["demo"]
def two_ranks(sums_back, seed, steps=150):
    """Losses in training, losses of the model that rank 0 would save, and how far the two copies are apart."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(128, 8, generator=g)
    y = torch.sin(2 * x @ torch.randn(8, 4, generator=g) / 8**0.5)
    first = [torch.randn(16, 8, generator=g) / 8**0.5] * 2
    up, down = torch.randn(2, 16, 16, generator=g) / 4, torch.randn(2, 4, 16, generator=g) / 32**0.5
    first = [w.clone().requires_grad_() for w in first]
    up, down = up.requires_grad_(), down.requires_grad_()

    def loss_with(copies):
        terms = [torch.tanh(torch.tanh(x @ copies[r].T) @ up[r].T) @ down[r].T for r in range(2)]
        return F.mse_loss(terms[0] + terms[1], y)

    trained, saved, apart = [], [], []
    for _ in range(steps):
        loss = loss_with(first)
        *gradients, of_up, of_down = torch.autograd.grad(loss, [*first, up, down])
        if sums_back:
            gradients = [gradients[0] + gradients[1]] * 2
        with torch.no_grad():
            trained.append(loss.item())
            saved.append(loss_with([first[0]] * 2).item())
            apart.append(float((first[0] - first[1]).norm() / first[0].norm()))
            for w, step in zip([*first, up, down], [*gradients, of_up, of_down], strict=True):
                w -= 0.5 * step
    return trained, saved, apart


runs = {sums: torch.tensor([two_ranks(sums, seed) for seed in range(10)]) for sums in (True, False)}
ends = {sums: [interval(run[:, which, -1].tolist()) for which in (0, 1)] for sums, run in runs.items()}
drift = runs[False][:, 2, -1]
fig, (left, right) = figure(1, 2, width=10.5, height=3.7)
for sums, color, name in ((True, COLORS[0], "gradients of x added up"), (False, COLORS[1], "forgotten")):
    trained, saved, apart = runs[sums].mean(0)
    left.plot(trained, color=color, label=f"{name}: in training")
    left.plot(saved, "--", color=color, alpha=0.8, label=f"{name}: the model that rank 0 saves")
    right.plot(100 * apart, color=color, label=name)
left.set(xlabel="step", ylabel="mean squared error", ylim=(0, None),
         title=f"Added up, the saved model ends at {ends[True][1].mean:.2f}")
right.set(xlabel="step", ylabel="copies apart, % of their norm", title=f"{100 * drift.mean():.0f} % apart at the end")
left.legend(fontsize=8)
right.legend(fontsize=9)
show(fig, f"Left, loss against steps, mean of ten seeds; where it ends (95 %): with summed gradients "
          f"{ends[True][0].text('.3f')} in training and {ends[True][1].text('.3f')} saved; forgotten "
          f"{ends[False][0].text('.3f')} in training and {ends[False][1].text('.3f')} saved. Right: how far the two "
          f"copies are apart, at the end {100 * runs[True][:, 2, -1].mean():.0f} % and {100 * drift.mean():.0f} %.",
     title=f"Forgotten backwards (95 %): the loss in training ends at {ends[False][0].text()}, that of the saved model "
           f"at {ends[False][1].text()}")

# %% [markdown]
# The curve of the wrong run may look as good as the right one: the two ranks train *another network*, in which each has
# a first layer of its own. Rank 0 saves its own copy, and that is a model which nobody has trained. No error, no NaN.
# So here gradients are checked as strictly as results.
#
# ## 2. A layer cut by outputs
#
# ### Exercise: the column-parallel layer
#
# Which rows belong to rank $r$? Those that `weight.tensor_split(n)[r]` gives: they stand together, and parts differ by
# at most one row. And **hold nothing else**. A slice of a tensor is a *view*: it keeps the whole matrix in memory. All
# of this is done for memory, so clone the part, and forget the rest. (Here each rank is handed the whole matrix, to cut
# it. A loader of large models reads only the rank's slice from the file.)

# %% exercise="ColumnParallelLinear"
class ColumnParallelLinear(nn.Module):
    """A linear layer y = x @ weight.T + bias, of which each rank computes its own outputs.

    ColumnParallelLinear(weight, bias=None), on every rank, with the whole weight [outputs,
    inputs] and bias [outputs] or None, equal on all ranks, floating-point. outputs is at least
    the number of ranks n and need not divide by it.
    Rank r keeps as parameters `weight`, the rows weight.tensor_split(n)[r], and `bias`, the
    entries that belong to them (or None). They have memory of their own (a view would keep the
    whole weight), and the module holds no other tensors. Building it sends nothing.

    forward(x): x [..., inputs], the same on all ranks, of weight's dtype; also one vector
    [inputs]. Returns this rank's outputs [..., own outputs]. Nothing is sent.
    Backwards each rank's parameters get their gradients, and x its whole gradient, on all ranks
    the same: one all_reduce of x's size, none where x needs no gradient. Nothing else is sent.
    """

    def __init__(self, weight, bias=None):
        super().__init__()
        ### BEGIN SOLUTION
        rank, n = dist.get_rank(), dist.get_world_size()
        self.weight = nn.Parameter(weight.tensor_split(n)[rank].clone())
        self.bias = None if bias is None else nn.Parameter(bias.tensor_split(n)[rank].clone())
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return F.linear(Region.enter(x), self.weight, self.bias)
        ### END SOLUTION

# %% check="ColumnParallelLinear"
check(ColumnParallelLinear)

# %% [markdown]
# ## 3. A layer cut by inputs
#
# ### Exercise: the row-parallel layer
#
# Each rank has its own inputs and its own columns, and computes terms. They are added up where the result leaves.
#
# The classic mistake of tensor parallelism is here: a bias on every rank is added $n$ times. The next attempt, $b/n$ on
# each, gives the right sum and a wrong *gradient*. The bias belongs to the sum.

# %% exercise="RowParallelLinear"
class RowParallelLinear(nn.Module):
    """A linear layer y = x @ weight.T + bias, of which each rank holds what its inputs need.

    RowParallelLinear(weight, bias=None), on every rank, with the whole weight [outputs, inputs]
    and bias [outputs] or None, equal on all ranks, floating-point. inputs is at least the
    number of ranks n and need not divide by it.
    Rank r keeps as parameters `weight`, the columns weight.tensor_split(n, 1)[r], in memory of
    their own, and `bias`, whole (or None). The module holds no other tensors. Building it sends
    nothing.

    forward(x): x [..., own inputs], this rank's part of the inputs, of weight's dtype. Returns
    the whole y [..., outputs], the same on all ranks: one all_reduce of y's size. The bias is in
    it once.
    Backwards each rank gets the gradients of its own part of x and of weight, and the whole
    gradient of bias. Nothing is sent.
    """

    def __init__(self, weight, bias=None):
        super().__init__()
        ### BEGIN SOLUTION
        rank, n = dist.get_rank(), dist.get_world_size()
        self.weight = nn.Parameter(weight.tensor_split(n, dim=1)[rank].clone())
        self.bias = None if bias is None else nn.Parameter(bias.clone())
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        y = Region.leave(F.linear(x, self.weight))
        return y if self.bias is None else y + self.bias
        ### END SOLUTION

# %% check="RowParallelLinear"
check(RowParallelLinear)

# %% [markdown]
# One behind the other they are an MLP. Count the messages.

# %% tags=["payoff"]
def pair(x, up, down):
    """Messages of column, GELU, row: forwards, backwards; and what the output is off one process."""
    first, second = ColumnParallelLinear(up), RowParallelLinear(down)
    x = x.clone().requires_grad_()
    with record_traffic() as forwards:
        y = second(F.gelu(first(x)))
    with record_traffic() as backwards:
        y.square().sum().backward()
    whole = F.linear(F.gelu(F.linear(x.detach(), up)), down)
    held = sum(p.numel() for layer in (first, second) for p in layer.parameters())
    told = [[f"{m.op} of {m.bytes}" for m in way] for way in (forwards, backwards)]
    return told, held, float((y.detach() - whole).abs().max())


torch.manual_seed(0)
given = torch.randn(10, 32), torch.randn(96, 32) / 32**0.5, torch.randn(32, 96) / 96**0.5
for n in (2, 3, 4):
    (forwards, backwards), held, off = launch(pair, *given, ranks=n)[0]
    print(f"{n} ranks: forwards {', '.join(forwards)} bytes, backwards {', '.join(backwards)} bytes; "
          f"{held:,} of {2 * 96 * 32:,} weights held; off by {off:.0e}")

# %% [markdown]
# ## 4. The MLP of LLaMA
#
# $$y = W_\text{down}\,\big(\operatorname{silu}(W_\text{gate}\,x) \odot W_\text{up}\,x\big)$$
#
# A hidden unit is a row of gate, the same row of up, and the same column of down. Give each rank some units. Two traps:
#
# * Libraries store gate and up **stacked**, as one matrix. Cut the stack in two, and rank 0 has all of gate, rank 1 all
#   of up. Cut each by itself.
# * gate and up both read $x$. Two column-parallel layers send **two** all-reduces backwards, where autograd could have
#   added the two gradients first, for nothing.
#
# ### Exercise: the tensor-parallel MLP

# %% exercise="TensorParallelMLP"
class TensorParallelMLP(nn.Module):
    """y = down(silu(gate x) * up x) + bias, its hidden units cut over the ranks.

    TensorParallelMLP(gate, up, down, bias=None), on every rank, with the whole matrices: gate
    and up [hidden, d], down [d, hidden], bias [d] or None, equal on all ranks. hidden is at
    least the number of ranks n and need not divide by it.
    Rank r keeps as parameters its hidden units: `gate` and `up`, the rows tensor_split(n)[r],
    `down`, the columns tensor_split(n, 1)[r], each in memory of its own; and `bias`, whole (or
    None). The module holds no other tensors. Building it sends nothing.

    forward(x): x [..., d], the same on all ranks. Returns y [..., d], the same on all ranks; the
    bias is in it once. One all_reduce of x's size, nothing else.
    Backwards the parameters get their gradients (bias its whole one), and x its whole gradient,
    on all ranks the same: one all_reduce of x's size, none where x needs no gradient.
    """

    def __init__(self, gate, up, down, bias=None):
        super().__init__()
        ### BEGIN SOLUTION
        rank, n = dist.get_rank(), dist.get_world_size()
        self.gate = nn.Parameter(gate.tensor_split(n)[rank].clone())
        self.up = nn.Parameter(up.tensor_split(n)[rank].clone())
        self.down = nn.Parameter(down.tensor_split(n, dim=1)[rank].clone())
        self.bias = None if bias is None else nn.Parameter(bias.clone())
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        x = Region.enter(x)
        hidden = F.silu(F.linear(x, self.gate)) * F.linear(x, self.up)
        y = Region.leave(F.linear(hidden, self.down))
        return y if self.bias is None else y + self.bias
        ### END SOLUTION

# %% check="TensorParallelMLP"
check(TensorParallelMLP)

# %% [markdown]
# ### And torch?
#
# torch cuts modules by a *plan*: `parallelize_module(mlp, mesh, {"gate": ColwiseParallel(), "up": ColwiseParallel(),
# "down": RowwiseParallel()})`. Parameters become **DTensors**, tensors that know how they are laid out over the ranks.
# Write down how many all-reduces it sends backwards, then look.

# %% tags=["demo"]
class PlainMLP(nn.Module):
    """The MLP of LLaMA, whole."""

    def __init__(self, d, hidden):
        super().__init__()
        self.gate, self.up = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
        self.down = nn.Linear(hidden, d, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


def by_torch(prepared, d=24, hidden=60):
    """Messages forwards and backwards, and how far results and gradients are off one process."""
    import warnings

    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        parallelize_module,
    )

    warnings.simplefilter("ignore")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(0)
    mlp, x = PlainMLP(d, hidden), torch.randn(5, d, requires_grad=True)
    whole = mlp(x)
    whole.square().sum().backward()
    right, x.grad = [x.grad, mlp.gate.weight.grad.clone()], None
    mlp.zero_grad()
    plan = {"gate": ColwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
    mlp = parallelize_module(mlp, mesh, plan)
    if prepared:  # x becomes a DTensor once, before gate and up read it
        layout = (Replicate(),)
        mlp = parallelize_module(mlp, mesh, PrepareModuleInput(input_layouts=layout, desired_input_layouts=layout))
    with record_traffic() as forwards:
        y = mlp(x)
    with record_traffic() as backwards:
        y.square().sum().backward()
    found = [x.grad, mlp.gate.weight.grad.full_tensor()]
    off = max(float((a - b).abs().max()) for a, b in zip([y, *found], [whole, *right], strict=True))
    return [[f"{m.op} of {m.bytes}" for m in way] for way in (forwards, backwards)], off


torchs = {prepared: launch(by_torch, prepared, ranks=3)[0] for prepared in (False, True)}
for prepared, ((forwards, backwards), off) in torchs.items():
    print(f"{'with PrepareModuleInput' if prepared else 'the plan alone':24} forwards {', '.join(forwards)} bytes; "
          f"backwards {', '.join(backwards)} bytes; off one process by {off:.0e}")

# %% [markdown]
# Did you guess it? With the plan alone each `ColwiseParallel` turns the plain $x$ into a DTensor *for itself*, so each
# adds up its own gradient (torch 2.13). Right numbers, and a message more than the layer needs. `PrepareModuleInput`
# does what your `Region.enter` does: $x$ enters once. The same holds for q, k and v.
#
# Now the real model. One of its thirty MLPs goes to your ranks, and what they give is put back in its place.

# %% tags=["payoff"]
model, tokenizer = smollm()
LAYER = 10
ids = tokenizer("The sea was calm, and nobody on board had slept for two days.", return_tensors="pt").input_ids


def seen_by(module):
    """What goes into a module of the model, and the model's logits."""
    caught = []
    watch = module.register_forward_pre_hook(lambda _, args, kwargs: caught.append((args, kwargs)), with_kwargs=True)
    with torch.inference_mode():
        logits = model(ids).logits.clone()
    watch.remove()
    return caught[0], logits


def logits_with(module, output):
    """The model's logits where `module` gives `output`."""
    swap = module.register_forward_hook(lambda *_: output)
    with torch.inference_mode():
        logits = model(ids).logits.clone()
    swap.remove()
    return logits


def run_mlp(weights, x):
    layer = TensorParallelMLP(**weights)
    with torch.no_grad(), record_traffic() as messages:
        y = layer(x)
    return y, sum(p.numel() for p in layer.parameters()), [f"{m.op} of {m.bytes:,} bytes" for m in messages]


mlp = model.model.layers[LAYER].mlp
(args, _), right = seen_by(mlp)
weights = {name: getattr(mlp, f"{name}_proj").weight.detach() for name in ("gate", "up", "down")}
x = args[0].clone()
whole = sum(w.numel() for w in weights.values())
for n in (2, 3):
    give_back(model)  # while the ranks work, nobody here reads its weights
    (y, held, messages), *_ = launch(run_mlp, weights, x, ranks=n)
    logits = logits_with(mlp, y)
    print(f"{n} ranks: each holds {held / whole:.3f} of {whole / 1e6:.2f} M weights, {', '.join(messages)}; "
          f"logits off by {float((logits - right).abs().max()):.0e}, next token the same: "
          f"{bool((logits.argmax(-1) == right.argmax(-1)).all())}")
give_back(model)

# %% [markdown]
# ### Parts, computed apart, combined by messages?
#
# The bank describes tensor parallelism in one sentence: weight matrices are cut, each device computes only a part of
# the result, and *the result has to be put together by communication*. We put each half to the test, on 2, 3 and 4
# ranks and five draws of weights: column, GELU, row, as plain torch calls.
#
# The rule, before the run. **Correct**, if the sum over the ranks is the whole layer's output within $10^{-5}$ of its
# size, if no rank holds more than a share of $1/n$ and a row, *and* if without the message every rank is off by more
# than a tenth (the control: else nothing would have to be put together). **Imprecise**, if parts and sum are right but
# the message isn't needed. Else **wrong**.

# %% claim="D03.5"
def with_and_without(seed, d=24, hidden=50):
    """Share of the weights held, and how far the result is off before and after the ranks' terms are added up."""
    g = torch.Generator().manual_seed(seed)
    x, up, down = (torch.randn(*s, generator=g) / s[-1] ** 0.5 for s in ((6, d), (hidden, d), (d, hidden)))
    whole = F.linear(F.gelu(F.linear(x, up)), down)
    rank, n = dist.get_rank(), dist.get_world_size()
    own = up.tensor_split(n)[rank], down.tensor_split(n, dim=1)[rank]
    y = F.linear(F.gelu(F.linear(x, own[0])), own[1])
    offs = [float((y - whole).norm() / whole.norm())]
    dist.all_reduce(y)
    offs.append(float((y - whole).norm() / whole.norm()))
    return sum(w.numel() for w in own) / (up.numel() + down.numel()), *offs


tried = {n: torch.tensor(launch(lambda: [with_and_without(seed) for seed in range(5)], ranks=n)) for n in (2, 3, 4)}
held = {n: float(t[..., 0].max()) for n, t in tried.items()}
alone = {n: float(t[..., 1].min()) for n, t in tried.items()}
summed = max(float(t[..., 2].max()) for t in tried.values())
shares = all(held[n] <= 1 / n + 1 / 50 for n in tried)
needed, right_sum = min(alone.values()) > 0.1, summed < 1e-5
for n in tried:
    print(f"{n} ranks: at most {held[n]:.3f} of the weights; without the sum off by {alone[n]:.2f} at least")
verdict("D03.5", "correct" if shares and right_sum and needed else "imprecise" if shares and right_sum else "wrong",
        f"On 2, 3 and 4 ranks each holds at most {', '.join(f'{held[n]:.2f}' for n in tried)} of the weights; added "
        f"up, the output is off by {summed:.0e} at most, without the message by {min(alone.values()):.2f} at least.")

# %% [markdown]
# The sentence leaves out what makes it work: *which* results are put together. Not those of every matrix: a pair of
# layers shares a message, and there is another one on the way back.
#
# ## 5. Attention
#
# Attention is cut by **heads**. A head is computed by itself from beginning to end, so q, k and v are column-parallel,
# o is row-parallel, and there is nothing to say in between. With **grouped queries** (GQA) several query heads read one
# key-value head. They have to stay together: the smallest piece that can be cut off is a *group*.
#
# Our chat model has 9 query heads and 3 key-value heads. Three ranks are easy. And two? torch's plan cuts *rows*, and
# knows nothing of heads.

# %% tags=["demo"]
def torch_cuts_keys(kv_heads=3, head_dim=4, d=8):
    """What ColwiseParallel makes of k, and what happens where heads are counted."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    class Keys(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = nn.Linear(d, kv_heads * head_dim, bias=False)

        def forward(self, x):
            return self.k(x).view(1, 5, -1, head_dim)  # [batch, tokens, heads, head_dim]

    keys = parallelize_module(Keys(), init_device_mesh("cpu", (dist.get_world_size(),)), {"k": ColwiseParallel()})
    rows = keys.k.weight.to_local().shape[0]
    try:
        return rows, f"{keys(torch.randn(1, 5, d)).shape[2]} head"
    except RuntimeError as error:
        return rows, f"{type(error).__name__}: {error}"


for n in (3, 2):
    rows, told = launch(torch_cuts_keys, ranks=n)[0]
    print(f"3 key-value heads of 4 rows on {n} ranks: {rows} rows each; {told}")

# %% [markdown]
# On two ranks each gets six rows, one head and a half, without a word. The error comes later, in another line, and
# speaks of shapes. With six heads of half the width each rank would get three whole ones: the plan works or doesn't by
# a number that it never looks at.
#
# ### Exercise: heads, with their groups
#
# You cut along groups, so that uneven numbers work: of 3 key-value heads rank 0 gets 2 with their 6 query heads, rank
# 1 gets 1 with 3. (Where there are *more* ranks than key-value heads, libraries copy a key-value head to several
# ranks, and add up its gradients. Here there never are.)

# %% exercise="TensorParallelAttention"
class TensorParallelAttention(nn.Module):
    """Causal self-attention with grouped queries, its heads cut over the ranks. No positions.

    TensorParallelAttention(q, k, v, o, head_dim), on every rank, with the whole matrices: q
    [heads * head_dim, d], k and v [kv heads * head_dim, d], o [d, heads * head_dim], equal on
    all ranks. heads is a multiple of kv heads: query heads i * g … (i + 1) * g - 1 read
    key-value head i, where g = heads / kv heads. kv heads is at least the number of ranks n and
    need not divide by it.
    Rank r has the key-value heads that tensor_split(n)[r] of all of them gives, and the query
    heads that read them. It keeps as parameters `q`, `k`, `v` (their rows) and `o` (their
    columns), each in memory of its own. The module holds no other tensors. Building it sends
    nothing.

    forward(x): x [batch, tokens, d], the same on all ranks. Token t sees tokens 0 … t; scores
    are scaled by 1 / sqrt(head_dim). Returns o applied to all heads, [batch, tokens, d], the
    same on all ranks. One all_reduce of x's size, nothing else.
    Backwards the parameters get their gradients, and x its whole gradient, on all ranks the
    same: one all_reduce of x's size, none where x needs no gradient.
    As F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) groups heads.
    """

    def __init__(self, q, k, v, o, head_dim):
        super().__init__()
        self.head_dim = head_dim
        ### BEGIN SOLUTION
        rank, n = dist.get_rank(), dist.get_world_size()
        kv = len(k) // head_dim

        def own(weight):
            return weight.reshape(kv, -1, weight.shape[1]).tensor_split(n)[rank].flatten(0, 1).clone()

        self.q, self.k, self.v = (nn.Parameter(own(weight)) for weight in (q, k, v))
        self.o = nn.Parameter(own(o.T).T.contiguous())
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        x = Region.enter(x)
        heads = (F.linear(x, weight) for weight in (self.q, self.k, self.v))
        q, k, v = (h.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for h in heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return Region.leave(F.linear(y.transpose(1, 2).flatten(2), self.o))
        ### END SOLUTION

# %% check="TensorParallelAttention"
check(TensorParallelAttention)

# %% [markdown]
# A whole layer of the real model, on your parts: attention and MLP. The model rotates queries and keys by their
# position (RoPE). A rotation acts on each head by itself, so it needs no message either; we put it between *your* q, k
# and *your* o.

# %% tags=["payoff"]
def turned(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def run_layer(weights, norms, head_dim, eps, x, cos, sin):
    """One layer of the model on this rank's parts: its output, weights held, messages."""
    attention = TensorParallelAttention(**{name: weights[name] for name in "qkvo"}, head_dim=head_dim)
    mlp = TensorParallelMLP(**{name: weights[name] for name in ("gate", "up", "down")})
    held = sum(p.numel() for part in (attention, mlp) for p in part.parameters())
    with torch.no_grad(), record_traffic() as messages:
        h = Region.enter(F.rms_norm(x, x.shape[-1:], norms[0], eps))
        heads = [F.linear(h, w).unflatten(-1, (-1, head_dim)).transpose(1, 2)
                 for w in (attention.q, attention.k, attention.v)]
        y = F.scaled_dot_product_attention(turned(heads[0], cos, sin), turned(heads[1], cos, sin), heads[2],
                                           is_causal=True, enable_gqa=True)
        x = x + Region.leave(F.linear(y.transpose(1, 2).flatten(2), attention.o))
        x = x + mlp(F.rms_norm(x, x.shape[-1:], norms[1], eps))
    return x, held, len(attention.k) // head_dim, len(messages)


layer = model.model.layers[LAYER]
(args, kwargs), right = seen_by(layer)
x = (args[0] if args else kwargs["hidden_states"]).clone()
cos, sin = (t.clone() for t in kwargs["position_embeddings"])
parts = {name: getattr(layer.self_attn, f"{name}_proj").weight.detach() for name in "qkvo"} | weights
norms = [layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()]
total = sum(w.numel() for w in parts.values())
for n in (2, 3):
    give_back(model)
    ranks = launch(run_layer, parts, norms, layer.self_attn.head_dim, model.config.rms_norm_eps, x, cos, sin, ranks=n)
    logits = logits_with(layer, ranks[0][0])
    print(f"{n} ranks: key-value heads {[r[2] for r in ranks]}, of {total / 1e6:.2f} M weights "
          f"{', '.join(f'{r[1] / total:.2f}' for r in ranks)}; {ranks[0][3]} messages; logits off by "
          f"{float((logits - right).abs().max()):.0e}, same next tokens: "
          f"{bool((logits.argmax(-1) == right.argmax(-1)).all())}")
give_back(model)

# %% [markdown]
# Two messages a layer forwards, and two backwards: that is Megatron's count. On two ranks this model's attention splits
# 2 : 1, so rank 1 waits while rank 0 works. So where people plan for it, numbers of heads divide by the ranks.
#
# ## How many bytes?
#
# Each of the four messages of a layer has the size of $x$: tokens × width. So
#
# $$\text{bytes a layer} = 4 \cdot \text{batch} \cdot \text{tokens} \cdot d \cdot \text{bytes a number},$$
#
# whatever the number of ranks (a ring then moves $2\frac{n-1}{n}$ times that). We count what your layers hand in, and
# draw the formula behind it.

# %% tags=["payoff"]
def bytes_of_a_layer(d, batch, tokens):
    """Bytes that this rank hands in, forwards and backwards, and numbers of weights that it holds."""
    torch.manual_seed(0)
    attention = TensorParallelAttention(*(torch.randn(d, d) / d for _ in range(4)), head_dim=d // 12)
    mlp = TensorParallelMLP(torch.randn(4 * d, d) / d, torch.randn(4 * d, d) / d, torch.randn(d, 4 * d) / d)
    x = torch.randn(batch, tokens, d, requires_grad=True)
    with record_traffic() as messages:
        h = x + attention(x)
        (h + mlp(h)).square().mean().backward()
    return sum(m.bytes for m in messages), sum(p.numel() for part in (attention, mlp) for p in part.parameters())


WIDTHS, BATCHES = (24, 48, 96, 192), (1, 2, 4, 8)
SIZES = [(d, 2, 32) for d in WIDTHS] + [(48, b, 32) for b in BATCHES]
counted = {n: launch(lambda: [bytes_of_a_layer(*size) for size in SIZES], ranks=n)[0] for n in (2, 3, 4)}
formula = [4 * d * b * t * 4 for d, b, t in SIZES]
fits = all(sent == need for of in counted.values() for (sent, _), need in zip(of, formula, strict=True))

fig, axes = figure(1, 3, width=10.5, height=3.6)
for ax, xs, part, label in ((axes[0], WIDTHS, slice(0, 4), "width d"), (axes[1], BATCHES, slice(4, 8), "batch")):
    ax.plot(xs, [f / 1e3 for f in formula[part]], color="#bbbbbb", linewidth=6, label="4 · batch · tokens · d · 4")
    for n, marker, size in ((2, "o", 11), (3, "s", 7), (4, "x", 6)):
        ax.plot(xs, [sent / 1e3 for sent, _ in counted[n][part]], marker, markersize=size, markerfacecolor="none",
                color=COLORS[n - 2], label=f"{n} ranks")
    ax.set(xlabel=label, ylabel="handed in, kB a layer", ylim=(0, None), title="64 tokens" if ax is axes[0] else
           "32 tokens a row, d = 48")
axes[0].legend(fontsize=8)
ns, base = list(counted), counted[2][1]
axes[2].plot(ns, [counted[n][1][0] / base[0] for n in ns], "o-", color=COLORS[0], label="handed in")
axes[2].plot(ns, [2 * (n - 1) / n * counted[n][1][0] / base[0] for n in ns], "s--", color=COLORS[1],
             label="sent by a ring, 2 (n - 1) / n")
axes[2].plot(ns, [counted[n][1][1] / base[1] for n in ns], "^-", color=COLORS[2], label="weights held")
axes[2].set(xlabel="ranks", ylabel="on 2 ranks = 1", xticks=ns, ylim=(0, 2.1),
            title=f"d = {SIZES[1][0]}, {SIZES[1][1] * SIZES[1][2]} tokens")
axes[2].legend(fontsize=8)
show(fig, f"Bytes handed in a layer, forwards and backwards. Against width {[s for s, _ in counted[2][:4]]} bytes on 2 "
          f"ranks, against batch {[s for s, _ in counted[2][4:]]}; the points of 2, 3 and 4 ranks "
          f"{'lie on the line of the formula' if fits else 'do not all lie on the line'}. Right: from 2 to 4 ranks "
          f"what is handed in goes from 1 to {counted[4][1][0] / base[0]:.2f}, weights held to "
          f"{counted[4][1][1] / base[1]:.2f}.",
     title=f"Counted bytes are {'those of the formula' if fits else 'not those of the formula'} on 2, 3 and 4 ranks; "
           f"weights held fall to {counted[4][1][1] / base[1]:.2f} of 2 ranks'")

# %% [markdown]
# ## Where it stops paying
#
# The work of a rank shrinks with $n$, its messages don't. We can't see that in seconds here, so this is a **model**,
# not a measurement: one layer of Llama 3 70B ($d$ = 8,192, 64 heads, 8 key-value heads, MLP of 28,672),
#
# $$T(n) = \frac{T_\text{compute}}{n} + k\left(2\,(n-1)\,\alpha + 2\,\frac{n-1}{n}\,\frac{m}{\beta}\right),$$
#
# with $k$ all-reduces of $m$ bytes, nothing hidden behind computation. Assumed: 400 TFLOP/s for matrix products, 3.35
# TB/s from memory; inside a machine (NVLink-class) $\alpha$ = 3 µs and $\beta$ = 400 GB/s; between machines either
# $\alpha$ = 5 µs and $\beta$ = 50 GB/s (InfiniBand-class, 400 Gbit/s for each GPU) or $\alpha$ = 20 µs and $\beta$ =
# 12.5 GB/s (Ethernet-class, 100 Gbit/s).
#
# Two jobs: a training step over 8,192 tokens (forwards and backwards, limited by arithmetic), and one token of one
# conversation (limited by reading the weights).

# %% tags=["demo"]
D, HEADS, KV, UNITS = 8192, 64, 8, 28672
WEIGHTS = D * D * 2 + 2 * D * D * KV // HEADS + 3 * D * UNITS  # of one layer
LINKS = {"NVLink-class": (3e-6, 400e9), "InfiniBand-class": (5e-6, 50e9), "Ethernet-class": (20e-6, 12.5e9)}
JOBS = {"training, 8,192 tokens": (8192, 6, 4), "one token of one conversation": (1, 2, 2)}


def layer_time(n, tokens, passes, messages, alpha, beta):
    """Seconds for a layer on n ranks, in the model."""
    compute = max(passes * tokens * WEIGHTS / 400e12, passes / 2 * 2 * WEIGHTS / 3.35e12)
    size = 2 * tokens * D
    return compute / n + messages * (2 * (n - 1) * alpha + 2 * (n - 1) / n * size / beta)


GPUS = [1, 2, 4, 8, 16, 32, 64]
fig, axes = figure(1, 2, width=10.5, height=3.8)
best, at_8 = {}, {}
for ax, (job, sizes) in zip(axes, JOBS.items(), strict=True):
    ax.loglog(GPUS, GPUS, ":", color="#888888", label="n times as fast")
    for (link, (alpha, beta)), color in zip(LINKS.items(), COLORS, strict=False):
        gain = [layer_time(1, *sizes, alpha, beta) / layer_time(n, *sizes, alpha, beta) for n in GPUS]
        best[job, link] = GPUS[gain.index(max(gain))]
        at_8[job, link] = gain[GPUS.index(8)]
        ax.loglog(GPUS, gain, "o-", color=color, label=f"{link}: best at {best[job, link]}")
    ax.set(xlabel="ranks that share the layer", xticks=GPUS, ylabel="times as fast as one (model)", title=job)
    ax.set_xticklabels(GPUS)
    ax.set_yticks([0.1, 1, 10])
    ax.set_ylim(0.05, 80)
    ax.minorticks_off()
    ax.legend(fontsize=9)
train = next(iter(JOBS))
show(fig, "Modeled speed-up against ranks. " + " ".join(
         f"{job}, {link}: {at_8[job, link]:.1f} at 8 ranks, best at {best[job, link]}." for job, link in best),
     title="A model: 8 ranks train " + ", ".join(f"{at_8[train, link]:.1f} × as fast ({link})" for link in LINKS))

# %% [markdown]
# This is why tensor parallelism stays **inside a machine**, where the fast links are: usually 2 to 8 ranks. (Where 72
# GPUs share such links, as in an NVL72, "a machine" is a rack.) Between machines go pipeline stages, one activation a
# stage, and data parallelism, one gradient a step.
#
# Two things the model leaves out. Real kernels lose efficiency when matrices become narrow. And libraries hide a part
# of the talk behind the computation: *async tensor parallelism* cuts a product into pieces, and sends one while it
# multiplies the next.
#
# ### For very large dense layers and embeddings?
#
# The bank says for which layers tensor parallelism is meant: *very large fully connected and embedding layers*. What if
# one did just that, and left attention whole on every rank? We count what a rank of eight holds, for published models:
# weights in bfloat16, and the cache of keys and values for one conversation as long as the model was trained for.
#
# The rule, before the count. **Correct**, if leaving attention whole costs a rank at most a tenth more bytes than
# cutting it as well, on every model. **Wrong**, if dense layers and embeddings hold less than half of the weights on
# every model. Else **imprecise**: the right layers, but not all that have to be cut.

# %% claim="D03.6"
# width, layers, heads, key-value heads, width of a head,
# hidden units, matrices of an MLP, vocabulary, embeddings, tokens
MODELS = {
    "GPT-3 175B": (12288, 96, 96, 96, 128, 49152, 2, 50257, 1, 2048),
    "Llama 3.1 8B": (4096, 32, 32, 8, 128, 14336, 3, 128256, 2, 131072),
    "Llama 3.1 70B": (8192, 80, 64, 8, 128, 28672, 3, 128256, 2, 131072),
    "Llama 3.1 405B": (16384, 126, 128, 8, 128, 53248, 3, 128256, 2, 131072),
}


def counted_parts(d, layers, heads, kv, head_dim, hidden, matrices, vocab, embeddings, tokens):
    """Bytes of dense layers and embeddings, of attention's weights, of the cache of keys and values."""
    dense = layers * matrices * d * hidden + embeddings * vocab * d
    attention = layers * (2 * d * heads * head_dim + 2 * d * kv * head_dim)
    return 2 * dense, 2 * attention, 2 * layers * 2 * kv * head_dim * tokens


model, _ = smollm()
linear = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name)
assert sum(counted_parts(576, 30, 9, 3, 64, 1536, 3, 49152, 1, 8192)[:2]) == 2 * linear  # the count, on our model

held = {}
for name, config in MODELS.items():
    dense, attention, cache = counted_parts(*config)
    held[name] = (dense + attention + cache) / 8, dense / 8 + attention + cache, dense / (dense + attention)
    print(f"{name:14} dense and embeddings {held[name][2]:4.0%} of the weights; a rank of eight holds "
          f"{held[name][0] / 1e9:6.1f} GB with everything cut, {held[name][1] / 1e9:6.1f} GB with attention whole")
costs = {name: whole / cut for name, (cut, whole, _) in held.items()}
share = [share for *_, share in held.values()]
verdict("D03.6",
        "correct" if max(costs.values()) <= 1.1 else "wrong" if max(share) < 0.5 else "imprecise",
        f"Dense layers and embeddings hold {min(share):.0%} to {max(share):.0%} of the weights of {len(MODELS)} "
        f"models; where attention stays whole, a rank of eight holds {min(costs.values()):.1f} to "
        f"{max(costs.values()):.1f} times as many bytes.")

# %% [markdown]
# What attention's weights and its cache add is the difference between the two columns. One matrix of a model has no
# place yet: the one that makes logits.
#
# ## 6. The loss
#
# The output layer is as wide as the vocabulary: 128,256 logits for each token in Llama 3. It is column-parallel like
# any other, so each rank has the logits of *its part of the vocabulary*. To gather them would be the largest message of
# the model. Look at what the cross-entropy of a token really needs:
#
# $$\ell = \log\sum_j e^{z_j - m} + m - z_t,\qquad m = \max_j z_j$$
#
# Three numbers: a maximum, a sum, and the logit of the target $t$, which one rank has. Each is **one all-reduce of one
# number a token**. And backwards, $\partial\ell/\partial z_j = p_j - [j = t]$ for the rank's own $j$: it has
# everything.
#
# ### Exercise: the vocabulary-parallel loss
#
# Where the traps are: the maximum must be the *same* on all ranks. A target outside your part must not pick a wrong
# logit. Parts may differ in size. Padding doesn't count.

# %% exercise="vocab_parallel_cross_entropy"
def vocab_parallel_cross_entropy(logits, targets, vocab_size, ignore_index=-100):
    """The mean cross-entropy, where each rank holds the logits of its own part of the vocabulary.

    logits:       [tokens, own part], floating-point. Rank r has the part that tensor_split(n)[r]
                  of the vocabulary gives: parts differ by at most one and stand in order.
    targets:      int64 [tokens], the same on all ranks: numbers of tokens from 0 to
                  vocab_size - 1, or ignore_index
    vocab_size:   int, the whole vocabulary, at least as large as the number of ranks n
    ignore_index: int. Targets equal to it count neither in the mean nor in the gradient; it may
                  be a token's number. At least one target counts.
    Returns the mean over the targets that count of -log softmax(all logits)[target], a tensor
    without dimensions, of logits' dtype, the same on all ranks, and without overflow where
    logits are large. logits are not changed.

    Gradients flow to logits: each rank gets those of its own part, as one process would.
    Traffic: forwards at most three all_reduces, together at most three numbers (of logits'
    dtype) a token; backwards nothing.
    As F.cross_entropy of all logits; Shoeybi et al. 2019, arXiv:1909.08053, and Megatron-LM's
    core/tensor_parallel/cross_entropy.py.
    """
    ### BEGIN SOLUTION
    rank, n = dist.get_rank(), dist.get_world_size()
    first = sum(len(part) for part in torch.arange(vocab_size).tensor_split(n)[:rank])
    top = logits.detach().amax(1)
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    here = (targets >= first) & (targets < first + logits.shape[1])
    places = (targets - first).where(here, 0)
    target = logits.gather(1, places[:, None])[:, 0].where(here, 0.0)
    sums = Region.leave((logits - top[:, None]).exp().sum(1))
    losses = sums.log() + top - Region.leave(target)
    return losses[targets != ignore_index].mean()
    ### END SOLUTION

# %% check="vocab_parallel_cross_entropy"
check(vocab_parallel_cross_entropy)

# %% [markdown]
# The real model's logits for a sentence, its vocabulary cut in three. What does each rank send, and what would
# gathering cost?

# %% tags=["payoff"]
def run_loss(logits, targets):
    own = logits.tensor_split(dist.get_world_size(), 1)[dist.get_rank()].clone().requires_grad_()
    with record_traffic() as messages:
        loss = vocab_parallel_cross_entropy(own, targets, logits.shape[1])
        loss.backward()
    return loss, own.grad, sum(m.bytes for m in messages), own.numel() * own.element_size()


with torch.inference_mode():
    logits = model(ids).logits[0, :-1].clone()
give_back(model)
targets = ids[0, 1:].clone()
whole = logits.clone().requires_grad_()
loss = F.cross_entropy(whole, targets)
loss.backward()
ranks = launch(run_loss, logits, targets, ranks=3)
sent, part = ranks[0][2], ranks[0][3]
off = float((torch.cat([gradient for _, gradient, *_ in ranks], 1) - whole.grad).abs().max())
print(f"loss {ranks[0][0].item():.6f}, in one process {loss.item():.6f}; gradients off by {off:.0e}")

fig, ax = figure(width=8.5, height=2.3)
bars = ax.barh(["your loss", "gathering logits"], [sent, part], color=[COLORS[2], COLORS[1]])
ax.bar_label(bars, [f"{sent:,} bytes", f"{part:,} bytes"], padding=4)
ax.set(xscale="log", xlim=(10, 20 * part), xlabel=f"handed in by a rank, bytes, for {len(targets)} tokens")
ax.invert_yaxis()
show(fig, f"Two bars on a logarithmic axis: the vocabulary-parallel loss hands in {sent:,} bytes, gathering the logits "
          f"{part:,}.", title=f"Three numbers a token instead of {part // 4 // len(targets):,}: "
          f"{part / sent:,.0f} times fewer bytes")

# %% [markdown]
# The embedding at the other end is cut by vocabulary, too: each rank looks up the tokens that it has, gives zeros for
# the others, and `Region.leave` adds up.
#
# ## 7. Sequence parallelism
#
# What lies *between* the regions is still done on every rank: norms, residuals, dropout, on all tokens. It costs little
# arithmetic, but it keeps activations for the backward pass, and these aren't cut at all.
#
# Korthikanti et al. (2022, [arXiv:2205.05198](https://arxiv.org/abs/2205.05198)) cut them along the **sequence**:
# outside the regions each rank has some of the tokens. Where a region begins the tokens come together, where it ends
# they are dealt out again:
#
# | | forwards | backwards |
# |---|---|---|
# | where $x$ enters | all-gather | reduce-scatter |
# | where $y$ leaves | reduce-scatter | all-gather |
#
# An all-reduce *is* a reduce-scatter and an all-gather. So the bytes on the wire are the same as before, and the
# memory between the regions is divided by $n$. One thing is new: a norm's weight stands on all ranks, and each has
# used it for *its* tokens only. Its gradient has to be added up. Megatron does this once, after the backward pass;
# `Region.enter` on the weight does it at once.
#
# ### Exercise: the sequence-parallel MLP

# %% exercise="SequenceParallelMLP"
class SequenceParallelMLP(nn.Module):
    """down(silu(gate h) * up h) with h = rms_norm(x): tokens are cut outside, units inside.

    SequenceParallelMLP(norm, gate, up, down, eps=1e-5), on every rank, with the whole weights:
    norm [d], gate and up [hidden, d], down [d, hidden], equal on all ranks. hidden is at least
    the number of ranks n and need not divide by it.
    Rank r keeps as parameters `norm`, whole, and its hidden units: `gate` and `up`, the rows
    tensor_split(n)[r], `down`, the columns tensor_split(n, 1)[r], each in memory of its own. The
    module holds no other tensors. Building it sends nothing.

    forward(x): x [batch, own tokens, d], this rank's tokens; all ranks have equally many, and
    rank 0's come first in the sequence. The norm is F.rms_norm(x, (d,), norm, eps). Returns the
    results for the same tokens, [batch, own tokens, d]. Sent are one all-gather (x's size is
    handed in) and one reduce-scatter (n times x's size), nothing else.
    Backwards the parameters get their gradients, norm its whole one, on all ranks the same; x
    that of its own tokens. Sent are one reduce-scatter, one all-gather, of the same sizes, and
    one all_reduce of norm's size.
    Use dist.all_gather and dist.reduce_scatter, or their single-tensor forms.
    Korthikanti et al. 2022, arXiv:2205.05198.
    """

    def __init__(self, norm, gate, up, down, eps=1e-5):
        super().__init__()
        self.eps = eps
        ### BEGIN SOLUTION
        rank, n = dist.get_rank(), dist.get_world_size()
        self.norm = nn.Parameter(norm.clone())
        self.gate = nn.Parameter(gate.tensor_split(n)[rank].clone())
        self.up = nn.Parameter(up.tensor_split(n)[rank].clone())
        self.down = nn.Parameter(down.tensor_split(n, dim=1)[rank].clone())
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        n = dist.get_world_size()

        def gather(x):
            parts = [torch.empty_like(x) for _ in range(n)]
            dist.all_gather(parts, x.contiguous())
            return torch.cat(parts, 1)

        def scatter(y):
            parts = [part.contiguous() for part in y.chunk(n, 1)]
            own = torch.empty_like(parts[0])
            dist.reduce_scatter(own, parts)
            return own

        class Gather(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return gather(x)

            @staticmethod
            def backward(ctx, gradient):
                return scatter(gradient)

        class Scatter(torch.autograd.Function):
            @staticmethod
            def forward(ctx, y):
                return scatter(y)

            @staticmethod
            def backward(ctx, gradient):
                return gather(gradient)

        x = F.rms_norm(x, x.shape[-1:], Region.enter(self.norm), self.eps)
        x = Gather.apply(x.contiguous())
        hidden = F.silu(F.linear(x, self.gate)) * F.linear(x, self.up)
        return Scatter.apply(F.linear(hidden, self.down))
        ### END SOLUTION

# %% check="SequenceParallelMLP"
check(SequenceParallelMLP)

# %% [markdown]
# How much is kept for the backward pass? We count the bytes of all activations that autograd saves on a rank, for a
# norm and an MLP: everything on one rank, tensor-parallel, sequence-parallel.

# %% tags=["payoff"]
def kept_for_backward(kind, d=64, hidden=256, tokens=120):
    """Bytes of activations that autograd keeps on this rank, in units of all tokens of one width, and bytes sent."""
    torch.manual_seed(0)
    n, saved = dist.get_world_size(), {}
    whole = {"gate": torch.randn(hidden, d) / 8, "up": torch.randn(hidden, d) / 8, "down": torch.randn(d, hidden) / 16}
    norm, x = nn.Parameter(torch.ones(d)), torch.randn(1, tokens, d)
    if kind == "sequence":
        layer, x = SequenceParallelMLP(norm.detach(), **whole), x.chunk(n, 1)[dist.get_rank()].clone()
    else:
        layer = TensorParallelMLP(**whole)
    own = {p.data_ptr() for p in [norm, *layer.parameters()]}
    x.requires_grad_()

    def keep(t):
        if t.data_ptr() not in own:
            saved[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), record_traffic() as messages:
        y = layer(x) if kind == "sequence" else layer(F.rms_norm(x, (d,), norm, 1e-5))
    kept = sum(saved.values()) / (4 * tokens * d)
    y.square().sum().backward()
    # a ring: an all-reduce hands on 2 (n - 1) / n of its tensor, the others (n - 1) / n of the whole one
    whole = [{"all_reduce": 2 * m.bytes, "all_gather": n * m.bytes}.get(m.op, m.bytes) for m in messages]
    wire = sum(whole) * (n - 1) / n
    return kept, wire


KINDS = {"tensor": COLORS[0], "sequence": COLORS[2]}
counts = (1, 2, 3, 4)
memory = {kind: [launch(kept_for_backward, kind, ranks=n)[0] for n in counts] for kind in KINDS}
fig, (left, right) = figure(1, 2, width=10, height=3.5)
for i, (kind, color) in enumerate(KINDS.items()):
    left.bar([n + 0.36 * i - 0.18 for n in counts], [kept for kept, _ in memory[kind]], width=0.34, color=color,
             label=f"{kind}-parallel")
    right.bar([n + 0.36 * i - 0.18 for n in counts], [wire / 1e3 for _, wire in memory[kind]], width=0.34, color=color)
left.set(xlabel="ranks", ylabel="kept, in tokens × d", xticks=counts, title="activations kept on a rank")
right.set(xlabel="ranks", ylabel="kB sent by a ring", xticks=counts, title="sent forwards")
left.legend()
last = {kind: memory[kind][-1] for kind in KINDS}
show(fig, "Bars. Kept on a rank, in tokens × width, for 1 to 4 ranks: " + "; ".join(
         f"{kind}-parallel {', '.join(f'{kept:.1f}' for kept, _ in memory[kind])}" for kind in KINDS) + ". Sent: " +
     "; ".join(f"{kind}-parallel {', '.join(f'{wire / 1e3:.0f}' for _, wire in memory[kind])} kB" for kind in KINDS),
     title=f"On 4 ranks {last['tensor'][0]:.1f} and {last['sequence'][0]:.1f} × tokens × d kept, "
           f"{last['tensor'][1] / 1e3:.0f} and {last['sequence'][1] / 1e3:.0f} kB sent")

# %% [markdown]
# What is still whole is the gathered input of the MLP. Megatron keeps only its own part of that as well, and gathers
# again in the backward pass: one message more, to be hidden behind a product.
#
# Don't mix this up with **context parallelism**, which cuts the sequence *inside* attention as well, for sequences of
# hundreds of thousands of tokens (ring attention, [arXiv:2310.01889](https://arxiv.org/abs/2310.01889)). Sequence
# parallelism is a part of tensor parallelism and uses its ranks.
#
# ## What torch does that you wouldn't guess
#
# Each line is a guess that sounds reasonable, and what torch 2.13 does. Most of it goes on without an error.

# %% tags=["demo"]
def surprises():
    """What really happens, in words, with the numbers of this run."""
    import warnings

    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        SequenceParallel,
        loss_parallel,
        parallelize_module,
    )

    warnings.simplefilter("ignore")
    rank, n = dist.get_rank(), dist.get_world_size()
    mesh, found = init_device_mesh("cpu", (n,)), {}
    torch.manual_seed(0)

    lm = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10, bias=False))
    lm[1].weight = lm[0].weight
    ids = torch.tensor([[1, 2, 3]])
    lm(ids).logsumexp(-1).sum().backward()
    right = lm[0].weight.grad.clone()
    lm.zero_grad()
    plan = {"0": RowwiseParallel(input_layouts=Replicate()), "1": ColwiseParallel(output_layouts=Replicate())}
    lm = parallelize_module(lm, mesh, plan)
    lm(ids).logsumexp(-1).sum().backward()
    share = float(lm[0].weight.grad.full_tensor().norm() / right.norm())
    one = lm[0].weight is lm[1].weight
    told = f"one object afterwards: {one}; the embedding's gradient has {share:.2f} of its norm"
    lm.zero_grad()
    lm[1].weight = lm[0].weight
    lm(ids).logsumexp(-1).sum().backward()
    off = float((lm[0].weight.grad.full_tensor() - right).abs().max())
    found["tied embedding and head stay tied"] = f"{told}; tied again, it is {off:.0e} off one process's"

    norm = parallelize_module(nn.Sequential(nn.RMSNorm(8)), mesh, {"0": SequenceParallel()})
    tokens = torch.randn(1, 12, 8)
    y = norm(tokens.chunk(n, 1)[rank])
    y.to_local().square().sum().backward()
    gradient = norm[0].weight.grad
    part = float(gradient.to_local().norm() / gradient.full_tensor().norm())
    found["SequenceParallel gives plain tensors and gradients"] = (
        f"a {type(y).__name__} of {y.shape[1]} tokens; the weight's gradient is {gradient.placements[0]}, its local "
        f"part {part:.2f} of the norm")
    found["given all tokens by mistake it raises"] = f"takes 12 tokens on {n} ranks for {norm(tokens).shape[1]}"

    head = nn.Sequential(nn.Linear(8, 12, bias=False))
    cut = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    logits, targets = parallelize_module(head, mesh, {"0": cut})(torch.randn(5, 8)), torch.tensor([1, 2, 3, 4, 11])
    try:
        told = f"gives {float(F.cross_entropy(logits, targets)):.3f}"
    except RuntimeError as error:
        told = f"{type(error).__name__}: {str(error)[:66]} …"
    with loss_parallel():
        loss = F.cross_entropy(logits, targets)
    loss = loss.full_tensor() if hasattr(loss, "full_tensor") else loss
    told = f"{told}; inside loss_parallel() it gives {float(loss):.3f}"
    found["cross_entropy takes a logits DTensor and labels"] = told

    row = distribute_tensor(torch.arange(1.0, 7.0)[None], mesh, [Shard(1)])  # 1 to 6, cut in the middle
    total = row.sum()
    found["item() of a sum is the sum"] = f"{total.item():g} on this rank, full_tensor() {total.full_tensor().item():g}"
    sums = {d: [int(x) for x in row.cumsum(d).full_tensor()[0]] for d in (1, -1)}
    found["cumsum(-1) of a row is cumsum(1)"] = f"{sums[-1]}, not {sums[1]}" if sums[-1] != sums[1] else "it is"

    def slopes(loss):
        guess = row.detach().requires_grad_()
        loss(guess, torch.zeros_like(row)).backward()
        return guess.grad.full_tensor()

    ratio = slopes(F.mse_loss) / slopes(lambda a, b: (a - b).square().mean())
    found["mse_loss has the gradient of the mean of squares"] = f"{ratio.min():.2f} to {ratio.max():.2f} times it"
    return found


for guess, told in launch(surprises, ranks=2)[0].items():
    print(f"guess: {guess}\n  seen: {told}\n")

# %% [markdown]
# * **Tied weights** are the expensive one. After the plan there are two matrices, each with its own part of the
#   gradient. Tie them again: `model.head.weight = model.embedding.weight`.
# * A gradient that is `Partial` is this rank's share. Whoever reads `.to_local()`, for clipping or a log, reads a wrong
#   one. So does `item()` of any sum, mean or norm that isn't added up yet: `full_tensor()` first.
# * The last three lines stand alone, with more cases, in `findings/torch_dtensor_item_is_a_rank_s_own_share.sh`,
#   `findings/torch_dtensor_cumsum_begins_anew.sh` and `findings/torch_dtensor_mse_loss_has_twice_the_gradient.sh`, for
#   torch 2.13.0. Give dimensions as positive numbers, and write a mean of squares by hand.
#
# ## Together with data parallelism
#
# Tensor parallelism is one dimension of a grid. Four ranks as 2 × 2: pairs share a layer, and the two pairs have other
# rows of the batch. Messages inside a pair are activations, messages between pairs are gradients *of own parts*, half
# as many as without the cut.

# %% tags=["demo"]
def two_by_two(d=16, hidden=40):
    """How far the gradient is from one process's, and the sizes of the gradient's messages between the pairs."""
    import warnings

    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    warnings.simplefilter("ignore")
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    torch.manual_seed(0)
    mlp, rows = PlainMLP(d, hidden), torch.randn(8, d)
    mlp(rows).square().mean().backward()
    right = mlp.down.weight.grad.clone()
    mlp.zero_grad()
    plan = {"gate": ColwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
    mlp = parallelize_module(mlp, mesh["tensor"], plan)
    mlp(rows.chunk(2)[mesh.get_local_rank("data")]).square().mean().backward()
    with record_traffic() as messages:
        for p in mlp.parameters():
            own = p.grad.to_local()
            dist.all_reduce(own, group=mesh.get_group("data"))
            own /= 2
    off = float((mlp.down.weight.grad.full_tensor() - right).abs().max())
    return off, sum(m.bytes for m in messages), 4 * 3 * d * hidden


off, sent, all_of_it = launch(two_by_two, ranks=4)[0]
print(f"2 x 2 ranks: gradients off one process by {off:.0e}; between the pairs a rank hands in {sent:,} bytes of "
      f"{all_of_it:,} bytes of gradients")

# %% [markdown]
# Pipeline stages are the next dimension, then context and experts: the ways to cut a model exclude one another as
# little as length and width. The order of the grid follows the links: tensor parallelism innermost.
#
# With torchrun and GPUs nothing in these classes has to change, since none names a device: build the layers from
# weights on `cuda:{local_rank}`, and NCCL carries the messages. (Not tried here: all tensors were on the CPU.) A
# training program of this kind is `python -m labkit.train_tp`, under torchrun.
#
# ## What you can say now
#
# * Column, activation, row: one all-reduce forwards and one backwards for an MLP, the same for attention. Four messages
#   a layer, each of tokens × width, whatever the number of ranks.
# * $f$ does nothing forwards and sums backwards; $g$ sums forwards and does nothing backwards. Forget $f$, and
#   everything looks right.
# * A bias behind a row-parallel layer is added once. A head stays with its group. A slice is a view.
# * The loss needs three numbers a token, never the logits.
# * Sequence parallelism turns each all-reduce into an all-gather and a reduce-scatter: equal bytes, less memory; the
#   norm's gradient has to be summed.
# * It pays inside a machine: work shrinks with $n$, messages don't.
