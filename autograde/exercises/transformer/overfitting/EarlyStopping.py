"""`EarlyStopping`: Watches a loss and says when to stop."""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import randn
from autograde.exercises.transformer.shared import Still

exercise = Draft(
    "EarlyStopping",
    points=3,
    hints=[
        "What must be remembered from step to step? The best loss, its step, and how long ago that was.",
        "if loss < self.best - self.min_delta: remember it, and set the count to 0; otherwise count one more.",
        "return self.bad >= self.patience. Start with best = inf, best_step = -1, and count the steps from 0.",
    ],
)


@exercise.cases
def stopper_cases(g):
    def walk(steps, drift):
        return [round(v, 3) for v in (3 + (drift + 0.3 * randn(g, steps)).cumsum(0)).tolist()]

    yield case([1.0, 0.8, 0.9, 0.7, 0.75, 0.72, 0.71, 0.8], 3, label="down, then up")
    yield case([2.0, 1.5, 1.6, 1.4, 1.5, 1.3, 1.4, 1.2, 1.3], 2, label="every other step better")
    yield case([1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7], 2, min_delta=0.12, label="small gains, min_delta=0.12")
    yield case([1.0, 1.0, 1.0, 1.0], 2, label="always the same")
    yield case([1.0, math.nan, math.nan, 0.5], 2, label="NaN is no improvement")
    yield case([0.5, 0.9, 0.8, 0.7, 0.6], 3, label="falling, but never below the first")
    yield case([0.7], 1, label="a single step")
    yield case([-1.0, -2.0, -1.5, -3.0, -2.0], 1, label="negative losses, patience 1")
    yield case(walk(14, 0.02), 3, label="a random walk")
    yield case(walk(14, -0.05), 2, min_delta=0.05, label="a falling random walk, min_delta=0.05")


@exercise.oracle
def torch_plateau(losses, patience, min_delta=0.0):
    """torch's ReduceLROnPlateau lowers the learning rate where we stop."""
    said = []
    for upto in range(1, len(losses) + 1):
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            Still(), factor=0.5, patience=10**6, threshold=min_delta, threshold_mode="abs"
        )
        best_step = -1
        for i, loss in enumerate(losses[:upto]):
            before = plateau.best
            plateau.step(loss)
            best_step = i if plateau.best != before else best_step
        said.append(plateau.num_bad_epochs >= patience)
    return {"stop": said, "best": float(plateau.best), "best_step": best_step}


@exercise.probe
def run_stopper(stopper, losses, patience, min_delta=0.0):
    """Report one loss after another; what `step` said each time, and what is remembered at the end."""
    stopping = stopper(patience, min_delta=min_delta) if min_delta else stopper(patience)
    said = [bool(stopping.step(loss)) for loss in losses]
    return {"stop": said, "best": float(stopping.best), "best_step": int(stopping.best_step)}


@exercise.law("Remembers the best loss and its step")
def remembers_the_best(out, one, call):
    if one.kwargs.get("min_delta"):
        return None
    real = [loss for loss in one.args[0] if not math.isnan(loss)]
    return out["best"] == min(real) and one.args[0][out["best_step"]] == min(real)


@exercise.law("Goes on as long as things get better")
def goes_on_while_it_gets_better(out, one, call):
    falling = [10.0 - i for i in range(8)]
    return not any(call(falling, one.args[1])["stop"])


@exercise.law("Stops after exactly `patience` steps without improvement")
def stops_after_patience(out, one, call):
    patience = one.args[1]
    said = call([1.0] + [2.0] * patience, patience)["stop"]
    return said == [False] * patience + [True]


@exercise.alternative
class Stopper:
    """Early stopping, right; what the mistakes below change is each a method or an attribute."""

    slack = 0

    def __init__(self, patience, min_delta=0.0):
        self.patience, self.min_delta = patience, min_delta
        self.best, self.best_step, self.bad, self.count = math.inf, -1, 0, 0

    def better(self, loss):
        return loss < self.best - self.min_delta

    def improved(self, loss):
        self.best, self.best_step, self.bad = loss, self.count, 0

    def step(self, loss):
        if self.better(loss):
            self.improved(loss)
        else:
            self.bad += 1
        self.count += 1
        return self.bad >= self.patience + self.slack


@exercise.mistake(
    "it stops one step late", hint="After `patience` steps without improvement: >= patience, not > patience."
)
class StopsOneLate(Stopper):
    slack = 1


@exercise.mistake("it stops one step early", hint="Stop at the `patience`-th step without improvement.")
class StopsOneEarly(Stopper):
    slack = -1

    def step(self, loss):
        return super().step(loss) and self.bad > 0


@exercise.mistake(
    "bad steps are counted over the whole training and never reset", hint="An improvement sets the count back to 0."
)
class StopsOnTotal(Stopper):
    def improved(self, loss):
        self.best, self.best_step = loss, self.count


@exercise.mistake(
    "each loss is compared with the one before instead of the best",
    hint="A loss that falls from a peak is no improvement. Compare with the best so far.",
)
class StopsByPrevious(Stopper):
    previous = math.inf

    def better(self, loss):
        better, self.previous = loss < self.previous - self.min_delta, loss
        return better


@exercise.mistake("higher is taken for better", hint="These are losses: lower is better.")
class StopsUpsideDown(Stopper):
    def __init__(self, patience, min_delta=0.0):
        super().__init__(patience, min_delta)
        self.best = -math.inf

    def better(self, loss):
        return loss > self.best + self.min_delta


@exercise.mistake("min_delta isn't used", hint="Only loss < best - min_delta is an improvement.")
class StopsWithoutDelta(Stopper):
    def better(self, loss):
        return loss < self.best


@exercise.mistake("a tie counts as an improvement", hint="Strictly less: loss < best - min_delta.")
class StopsOnTies(Stopper):
    def better(self, loss):
        return loss <= self.best - self.min_delta


@exercise.mistake(
    "NaN counts as an improvement",
    hint="Every comparison with NaN is False. Ask `loss < best - min_delta`, not `not (loss >= …)`.",
)
class StopsNeverForNaN(Stopper):
    def better(self, loss):
        return not loss >= self.best - self.min_delta


@exercise.mistake(
    "the last step is remembered as the best one",
    hint="best_step is the step of the best loss: that checkpoint is the one to restore.",
)
class StopsKeepsLast(Stopper):
    def step(self, loss):
        stop = super().step(loss)
        self.best_step = self.count - 1
        return stop


@exercise.mistake(
    "gains too small to count still move the best loss",
    hint="`best` changes only together with the count: else small gains would never add up to a real one.",
)
class StopsTracksEverySmallGain(Stopper):
    """Counts by min_delta, but lets `best` creep down with gains that are too small to count."""

    def step(self, loss):
        stop = super().step(loss)
        if loss < self.best:
            self.best, self.best_step = loss, self.count - 1
        return stop


@exercise.alternative
class StopsByHistory:
    """Keeps all losses and works everything out anew."""

    def __init__(self, patience, min_delta=0.0):
        self.patience, self.min_delta, self.losses = patience, min_delta, []
        self.best, self.best_step = float("inf"), -1

    def step(self, loss):
        self.losses.append(float(loss))
        if self.losses[-1] + self.min_delta < self.best or (self.best == math.inf and not math.isnan(loss)):
            self.best, self.best_step = self.losses[-1], len(self.losses) - 1
        return len(self.losses) - 1 - self.best_step >= self.patience
