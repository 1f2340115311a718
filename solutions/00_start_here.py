# ---
# jupyter:
#   course:
#     title: "Start here"
#     exercises: start_here
#     questions: []
#     needs: []
# ---

# %% [markdown]
# # Start here
#
# This course turns a bank of interview questions on Transformers, language-model applications and parallel training
# into things you *build*, *test* and *explain*.
#
# **Build.** You write the piece yourself: a rotary embedding, a sampler, distributed data parallel. A check looks at
# your code at once. It knows the mistakes people make with that very piece, and tells you which one is yours.
#
# **Test.** Interview answers are full of sentences that everybody repeats. Each chapter takes some of them, runs the
# experiment, and shows what comes out.
#
# **Explain.** At the end of a chapter stand its interview cards: the answer in 30 seconds, the depth behind it, the
# follow-up questions, the trap.

# %% [markdown]
# ## The map
#
# Run the next cell (click into it, then Shift + Enter) to see all chapters: how long each takes, what to solve before
# it, which interview questions it answers, what you have solved, and where to go next. The minutes are an estimate.
# What is solved comes from your checks and is kept when you close this page.

# %% tags=["demo"]
from labkit import show_map

show_map()

# %% tags=["setup"]
import torch

from autograde import check
from labkit import COLORS, figure, progress, show

# %% [markdown]
# ## How a chapter works
#
# Run the cells from top to bottom with Shift + Enter. Demos are complete: they only want to be read, run and played
# with. Here is one.
#
# A model ends in a row of scores, one for each possible answer. **Softmax** turns them into probabilities: raise $e$ to
# every score, then divide by the sum.
#
# $$p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# A single score that grows takes the probability from all the others.

# %% tags=["demo"]
scores = torch.tensor([1.0, 2.0, 0.5])
first = torch.linspace(-4, 8, 200)
rows = torch.stack([first, scores[1].expand(200), scores[2].expand(200)], dim=-1)
powers = rows.exp()
shares = powers / powers.sum(-1, keepdim=True)

fig, ax = figure(height=3.4, width=8)
for share, name, color in zip(shares.T, ["the growing score", "a score of 2", "a score of 0.5"], COLORS, strict=False):
    ax.plot(first, share * 100, color=color, label=name)
ax.set(xlabel="value of the growing score", ylabel="probability, %")
ax.set_title("One score takes over smoothly, never fully")
ax.legend(loc="center left")
show(fig, "Probability of three answers while one score grows from -4 to 8: an S-shaped rise for that one, "
          "a fall for the two others.")

# %% [markdown]
# The formula has a catch: $e^{1000}$ is more than a float can hold.

# %% tags=["demo"]
large = torch.tensor([1000.0, 999.0])
print("powers:  ", large.exp())
print("softmax: ", large.exp() / large.exp().sum())

# %% [markdown]
# ## Your first exercise
#
# Write a softmax that survives large scores. Replace the line under `YOUR CODE HERE`, run the cell, then run the
# check below it.
#
# The docstring always tells all that the check demands. One rule holds in every chapter besides: what an exercise asks
# you to build you don't call ready-made, such as `torch.softmax` here or one library's attention in another's place.
# If you do, the check names the function, and nothing is lost: write it yourself and check again. If you are stuck,
# three hints wait under the exercise, from a nudge to nearly the answer.
#
# In JupyterLab three buttons stand above each chapter. **Reset this exercise** brings the stub back and keeps what you
# wrote, **Hint** shows the next hint, **Reveal the solution** shows one once a try of yours was checked. They mean the
# exercise in which you are, or the nearest one above. Once the first cells have run, functions do the same everywhere:
#
# ```python
# hint(softmax)           # the next hint
# reveal(softmax)         # a solution, to read
# reset(softmax)          # the stub; what you wrote is put away
# history(softmax)        # what was put away
# reset(softmax, back=1)  # the latest of it
# ```

# %% exercise="softmax"
def softmax(x):
    """Probabilities from scores, along the last dimension.

    x: floating-point tensor [..., n], n >= 1, any number of leading dimensions. Scores may be
       as large as +-10,000, and single ones may be -inf (their probability is 0). Not changed.

    Returns a tensor of the shape and the dtype of x: e**x divided by the sum of e**x over the
    last dimension. No NaN, no infinity. Differentiable: gradients flow to x.
    """
    ### BEGIN SOLUTION
    powers = (x - x.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)
    ### END SOLUTION


# %% check="softmax"
check(softmax)

# %% [markdown]
# ## How the check talks
#
# Points come in lines. Half of them are for agreeing with a trusted implementation, here PyTorch's own, on inputs of
# many shapes and sizes. The other half are for **laws**: properties that every right answer has.
#
# When something is wrong, your results are compared with those of the mistakes the course knows. Below is what a
# colleague wrote. Can you see what is wrong before the check says it?

# %% tags=["demo"]
from autograde.check import grade
from autograde.check import show as show_report
from autograde.exercises import find


def colleague(x):
    powers = (x - x.max()).exp()
    return powers / powers.sum()


show_report(grade(find("softmax"), colleague))

# %% [markdown]
# In a classroom the same exercise is checked once more on other inputs, drawn from a seed that only the teacher has. So
# there is no use in writing down the answers to the inputs that you see.
#
# ## What your code makes possible
#
# Cells like the next one use *your* function. They may fail as long as the exercise is open; nothing else does.

# %% tags=["payoff"]
words = ["Paris", "London", "a city", "banana"]
for word, p in zip(words, softmax(torch.tensor([1003.0, 1000.5, 1001.0, 990.0])), strict=True):
    print(f"{word:>8} {'#' * round(40 * p.item())} {p:.1%}")

# %% [markdown]
# ## Where you stand
#
# Your best result in every exercise is kept in a small file on this machine. Nothing is sent anywhere.

# %% tags=["demo"]
progress.show()

# %% [markdown]
# ## For the interview
#
# Each chapter ends in cards: a question, its answer in 30 seconds, the depth, the follow-ups. The next cell asks them
# one by one: answer aloud, look, and say how it went. A card comes back when you are about to forget it. In Chinese:
# `drill("zh")`; one topic: `drill(topic="rope")`.
#
# Once some chapters are solved, `from autograde import interview` and `interview()` give you a mock interview: a coding
# task and two questions, drawn from where you were weak, with a clock. In a terminal both are `python course.py drill`
# and `python course.py interview`; `python course.py cards deck.apkg` writes the cards for Anki.

# %% tags=["demo"]
from autograde import drill

drill()

# %% [markdown]
# Now run the map at the top again: it says where to go next. `python course.py progress` shows the same in a terminal.
