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
    no_gradient="losses come as plain numbers",
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
    yield case([1.0, 0.95, 0.98, 0.9, 0.85, 0.88, 0.8], 2, min_delta=0.12, label="small gains, min_delta=0.12")
    yield case([1.0, 1.0, 1.0, 1.0], 2, label="always the same")
    yield case([1.0, *[math.nan] * 5, 0.5], 2, label="NaN is no improvement")
    yield case([0.5, 0.9, 0.8, 0.7, 0.6], 3, label="falling, but never below the first")
    yield case([0.7], 1, label="a single step")
    yield case([math.nan, math.nan, 2.0, 1.0, math.nan], 2, label="NaN comes first")
    yield case([math.nan] * 3, 3, label="nothing but NaN")
    yield case([2.0, math.inf, 1.0, math.inf, math.inf], 2, label="infinity is no improvement")
    yield case([math.inf, math.inf, math.inf, 3.0, 2.0], 2, label="infinity comes first")
    tiny = [3e-9, 2.5e-9, 2.6e-9, 2.4e-9, 2.3e-9, 2.35e-9, 2.45e-9, 2.2e-9]
    yield case(tiny, 2, label="losses near zero")
    yield case([50.0, 49.25, 49.5, 48.6, 48.8, 48.4, 47.5], 2, min_delta=0.5, label="large losses, min_delta=0.5")
    yield case(
        [-10.0, -10.5, -10.4, -10.7, -11.5, -11.3, -11.6, -11.7],
        2,
        min_delta=0.3,
        label="negative losses, min_delta=0.3",
    )
    yield case([1.0, 0.75, 0.875, 0.5, 0.25, 0.375, 0.0], 2, min_delta=0.25, label="gains of exactly min_delta")
    yield case([3.0, 2.0, *[2.5] * 30, 1.0, 1.5], 30, label="a long patience")
    yield case([-1.0, -2.0, -1.5, -3.0, -2.0], 1, label="negative losses, patience 1")
    yield case(walk(14, 0.02), 3, label="a random walk")
    # Losses have three decimals and min_delta four: no gain is min_delta up to rounding.
    yield case(walk(14, -0.05), 2, min_delta=0.0503, label="a falling random walk, min_delta=0.0503")


@exercise.oracle
def torch_plateau(losses, patience, min_delta=0.0):
    """torch's ReduceLROnPlateau lowers the learning rate where we stop."""
    told = {"stop": [], "best": [math.inf], "best_step": [-1]}
    for upto in range(1, len(losses) + 1):
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            Still(), factor=0.5, patience=10**6, threshold=min_delta, threshold_mode="abs"
        )
        best_step = -1
        for i, loss in enumerate(losses[:upto]):
            before = plateau.best
            plateau.step(loss)
            best_step = i if plateau.best != before else best_step
        told["stop"].append(plateau.num_bad_epochs >= patience)
        told["best"].append(float(plateau.best))
        told["best_step"].append(best_step)
    return told


@exercise.probe
def run_stopper(stopper, losses, patience, min_delta=0.0):
    """Report one loss after another; what `step` said each time, and what was remembered then. Another one is busy."""
    stopping = stopper(patience, min_delta=min_delta) if min_delta else stopper(patience)
    beside = stopper(1)
    told = {"stop": [], "best": [float(stopping.best)], "best_step": [int(stopping.best_step)]}
    for loss in losses:
        stop = stopping.step(loss)
        told["stop"].append(stop if stop is None else bool(stop))
        beside.step(-1e6)
        told["best"].append(float(stopping.best))
        told["best_step"].append(int(stopping.best_step))
    return told


@exercise.law("Remembers the best loss and its step")
def remembers_the_best(out, one, call):
    real = [loss for loss in one.args[0] if not math.isnan(loss)]
    if one.kwargs.get("min_delta") or not real:
        return None
    return out["best"][-1] == min(real) and one.args[0][out["best_step"][-1]] == min(real)


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


@exercise.mistake("min_delta is 0.0001 if nobody says otherwise", hint="The default is 0.0: any gain counts.")
class StopsWithSomeDelta(Stopper):
    def __init__(self, patience, min_delta=1e-4):
        super().__init__(patience, min_delta)


@exercise.mistake("any change by more than min_delta counts", hint="Only a loss that is lower is an improvement.")
class StopsOnChange(Stopper):
    def better(self, loss):
        return abs(loss - self.best) > self.min_delta


@exercise.mistake("it says True once, at exactly `patience` bad steps", hint="`patience` or more: >=, not ==.")
class StopsAtExactly(Stopper):
    def step(self, loss):
        super().step(loss)
        return self.bad == self.patience


@exercise.mistake("once it has said True it always does", hint="After an improvement it says False again.")
class StopsForGood(Stopper):
    stopped = False

    def step(self, loss):
        self.stopped = super().step(loss) or self.stopped
        return self.stopped


@exercise.mistake("NaN isn't counted at all", hint="NaN is no improvement: it counts like any other bad step.")
class StopsWithoutNaN(Stopper):
    def step(self, loss):
        if not math.isnan(loss):
            return super().step(loss)
        self.count += 1
        return self.bad >= self.patience


@exercise.mistake("best_step starts at 0", hint="-1, until there has been an improvement.")
class StopsWithStepZero(Stopper):
    def __init__(self, patience, min_delta=0.0):
        super().__init__(patience, min_delta)
        self.best_step = 0


@exercise.mistake("min_delta is taken for a share of the best loss", hint="It is an amount: loss < best - min_delta.")
class StopsByShare(Stopper):
    def better(self, loss):
        return loss < self.best * (1 - self.min_delta)


@exercise.mistake(
    "the first loss is always taken for the best", hint="NaN is no improvement, in the first step either."
)
class StopsFromFirst(Stopper):
    def better(self, loss):
        return self.count == 0 or super().better(loss)


@exercise.mistake("steps are counted from 1", hint="The first loss is that of step 0.")
class StopsCountingFromOne(Stopper):
    def improved(self, loss):
        super().improved(loss)
        self.best_step = self.count + 1


@exercise.mistake("after a stop the count starts again", hint="It goes on saying True until there is an improvement.")
class StopsOnce(Stopper):
    def step(self, loss):
        stop = super().step(loss)
        self.bad = 0 if stop else self.bad
        return stop


@exercise.mistake("min_delta is added: a loss may be a little worse", hint="It must be lower by more than min_delta.")
class StopsWithSlack(Stopper):
    def better(self, loss):
        return loss < self.best + self.min_delta


@exercise.mistake("best starts at 0", hint="Infinity: any real loss is an improvement on it.")
class StopsFromZero(Stopper):
    def __init__(self, patience, min_delta=0.0):
        super().__init__(patience, min_delta)
        self.best = 0.0


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
        if self.losses[-1] + self.min_delta < self.best:
            self.best, self.best_step = self.losses[-1], len(self.losses) - 1
        return len(self.losses) - 1 - self.best_step >= self.patience
