"""Exercises of 01_transformer/08_overfitting: dropout, label smoothing, early stopping, decay under Adam."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception
from autograde.exercises.transformer import overfitting_checks as checks
from autograde.exercises.transformer import overfitting_mistakes as wrong

dropout = Exercise(
    name="dropout",
    points=3,
    cases=checks.dropout_cases,
    oracle=checks.torch_dropout,
    laws=[
        Law("On average every number keeps its size", checks.keeps_the_mean),
        Law("Evaluation changes nothing", checks.same_in_evaluation),
        Law("A share p of the numbers is dropped", checks.drops_its_share),
    ],
    misconceptions=[
        Misconception(
            "the survivors are not scaled up",
            wrong.drop_unscaled,
            "With a share p gone, the next layer's sums shrink. Divide the survivors by 1 - p.",
        ),
        Misconception(
            "the survivors are multiplied by 1 - p instead of divided",
            wrong.drop_scaled_down,
            "They have to make up for what is gone: they get larger.",
        ),
        Misconception(
            "the survivors are divided by p", wrong.drop_divided_by_p, "p is the share that goes; 1 - p remains."
        ),
        Misconception(
            "p is taken for the share that stays",
            wrong.drop_keeps_with_p,
            "Drop where the noise is below p; keep where it is p or more.",
        ),
        Misconception(
            "noise that equals p is dropped, too", wrong.drop_boundary, "Dropped is what lies *below* p: noise < p."
        ),
        Misconception(
            "numbers are dropped in evaluation as well",
            wrong.drop_in_eval,
            "With training=False the input comes back as it is.",
        ),
        Misconception(
            "training leaves the size alone, and evaluation multiplies by 1 - p",
            wrong.drop_scales_in_eval,
            "That is the first paper's dropout. Today's scales in training, so that evaluation is free.",
        ),
        Misconception(
            "whole rows are dropped", wrong.drop_whole_rows, "Every number has its own noise: use all of `noise`."
        ),
        Misconception(
            "p = 1 divides by zero", wrong.drop_nan_at_one, "0 / 0 is NaN. With p = 1 everything is dropped: zeros."
        ),
        Misconception(
            "dropped numbers become -inf",
            wrong.drop_to_minus_infinity,
            "-inf is for masking scores before a softmax. Dropout sets activations to 0.",
        ),
    ],
    alternatives=[wrong.drop_by_where, wrong.drop_by_loop],
    forbid=["torch.nn.functional.dropout"],
    hints=[
        "Three situations: evaluation, p = 1, and everything else.",
        "noise >= p is True where a number survives. What must a survivor be multiplied by, so that the mean stays?",
        "In training: x * (noise >= p) / (1 - p); zeros if p is 1; x itself in evaluation.",
    ],
)


label_smoothing_loss = Exercise(
    name="label_smoothing_loss",
    points=3,
    cases=checks.smoothing_cases,
    oracle=checks.torch_label_smoothing,
    laws=[
        Law("Without smoothing it is the ordinary cross-entropy", checks.plain_without_smoothing),
        Law("With smoothing 1 the targets don't matter", checks.deaf_at_one),
        Law("Adding one number to all logits changes nothing", checks.shift_of_logits),
    ],
    misconceptions=[
        Misconception(
            "the smoothing is shared out among the wrong classes only",
            wrong.smooth_others_only,
            "Here (as in torch) every class gets smoothing / vocabulary, the right one as well.",
        ),
        Misconception(
            "the right class gets 1 - smoothing and the rest of the target is lost",
            wrong.smooth_without_uniform,
            "The target has to add up to 1: the share `smoothing` goes to all classes evenly.",
        ),
        Misconception(
            "the uniform part comes on top of the whole cross-entropy",
            wrong.smooth_on_top,
            "(1 - smoothing) times one loss plus smoothing times the other.",
        ),
        Misconception(
            "the uniform part is summed over the classes instead of averaged",
            wrong.smooth_summed_uniform,
            "Every class gets smoothing / vocabulary: a mean over the classes.",
        ),
        Misconception(
            "the two shares are swapped", wrong.smooth_swapped, "The right class gets the large share, 1 - smoothing."
        ),
        Misconception("the smoothing isn't used", wrong.smooth_ignored, "That is the ordinary cross-entropy."),
        Misconception(
            "probabilities stand where their logarithms belong",
            wrong.smooth_without_logarithm,
            "Cross-entropy needs log_softmax.",
        ),
        Misconception(
            "raw logits stand where log-probabilities belong", wrong.smooth_raw_logits, "logits.log_softmax(-1) first."
        ),
        Misconception(
            "padding adds nothing, but is counted in the mean",
            wrong.smooth_over_all,
            "Divide by the number of rows that are not ignored.",
        ),
        Misconception(
            "padding counts as class 0", wrong.smooth_counts_padding, "Rows whose target is ignore_index are left out."
        ),
        Misconception("the losses are summed over the rows", wrong.smooth_summed, "Take the mean over the rows."),
        Misconception("a loss per row is returned", wrong.smooth_per_token, "One number: the mean over the rows."),
    ],
    alternatives=[wrong.smooth_by_targets, wrong.smooth_by_loop],
    forbid=["torch.nn.functional.cross_entropy", "torch.nn.functional.nll_loss", "torch.nn.functional.kl_div"],
    dtypes=[torch.float64],
    hints=[
        "Write down the target of one row: what does the right class get, and what does every class get?",
        "The loss of a row is (1 - smoothing) * (-log p of the right class) + smoothing * (mean of -log p).",
        "logs = logits.log_softmax(-1); keep the rows with targets != ignore_index; gather the right class; "
        "combine, and take the mean.",
    ],
)


EarlyStopping = Exercise(
    name="EarlyStopping",
    points=3,
    cases=checks.stopper_cases,
    oracle=checks.torch_plateau,
    probe=checks.run_stopper,
    laws=[
        Law("Remembers the best loss and its step", checks.remembers_the_best),
        Law("Goes on as long as things get better", checks.goes_on_while_it_gets_better),
        Law("Stops after exactly `patience` steps without improvement", checks.stops_after_patience),
    ],
    misconceptions=[
        Misconception(
            "it stops one step late",
            wrong.StopsOneLate,
            "After `patience` steps without improvement: >= patience, not > patience.",
        ),
        Misconception(
            "it stops one step early", wrong.StopsOneEarly, "Stop at the `patience`-th step without improvement."
        ),
        Misconception(
            "bad steps are counted over the whole training and never reset",
            wrong.StopsOnTotal,
            "An improvement sets the count back to 0.",
        ),
        Misconception(
            "each loss is compared with the one before instead of the best",
            wrong.StopsByPrevious,
            "A loss that falls from a peak is no improvement. Compare with the best so far.",
        ),
        Misconception("higher is taken for better", wrong.StopsUpsideDown, "These are losses: lower is better."),
        Misconception(
            "min_delta isn't used", wrong.StopsWithoutDelta, "Only loss < best - min_delta is an improvement."
        ),
        Misconception("a tie counts as an improvement", wrong.StopsOnTies, "Strictly less: loss < best - min_delta."),
        Misconception(
            "NaN counts as an improvement",
            wrong.StopsNeverForNaN,
            "Every comparison with NaN is False. Ask `loss < best - min_delta`, not `not (loss >= …)`.",
        ),
        Misconception(
            "the last step is remembered as the best one",
            wrong.StopsKeepsLast,
            "best_step is the step of the best loss: that checkpoint is the one to restore.",
        ),
        Misconception(
            "gains too small to count still move the best loss",
            wrong.StopsTracksEverySmallGain,
            "`best` changes only together with the count: else small gains would never add up to a real one.",
        ),
    ],
    alternatives=[wrong.StopsByHistory, wrong.Stopper],
    hints=[
        "What must be remembered from step to step? The best loss, its step, and how long ago that was.",
        "if loss < self.best - self.min_delta: remember it, and set the count to 0; otherwise count one more.",
        "return self.bad >= self.patience. Start with best = inf, best_step = -1, and count the steps from 0.",
    ],
)


adam_with_decay = Exercise(
    name="adam_with_decay",
    points=4,
    cases=checks.adam_cases,
    oracle=checks.torch_adam,
    laws=[
        Law("Without gradients, decoupled decay shrinks by 1 - lr * weight_decay a step", checks.shrinks_by_itself),
        Law("Gradients fifty times as large make the same steps", checks.size_of_gradients),
        Law("Large gradients protect a weight from L2, and not from decoupled decay", checks.l2_is_adapted),
    ],
    misconceptions=[
        Misconception(
            "the decay is always decoupled, whatever is asked for",
            wrong.adam_always_decoupled,
            "With decoupled=False weight_decay * w is added to the gradient, before the moments.",
        ),
        Misconception(
            "the decay is always added to the gradient, as L2",
            wrong.adam_never_decoupled,
            "With decoupled=True the moments never see the decay: w shrinks by lr * weight_decay * w beside them.",
        ),
        Misconception("the two kinds are swapped", wrong.adam_swapped, "decoupled=True is AdamW."),
        Misconception("there is no decay", wrong.adam_without_decay, "weight_decay has to enter in either kind."),
        Misconception(
            "the decoupled decay isn't multiplied by the learning rate",
            wrong.adam_decay_without_lr,
            "In torch's AdamW w shrinks by lr * weight_decay * w.",
        ),
        Misconception(
            "the moments aren't corrected for starting at zero",
            wrong.adam_uncorrected,
            "Divide m by 1 - beta1 ** t and v by 1 - beta2 ** t, with t = 1 in the first step.",
        ),
        Misconception(
            "only the second moment is corrected", wrong.adam_first_uncorrected, "m needs its correction, too."
        ),
        Misconception(
            "only the first moment is corrected", wrong.adam_second_uncorrected, "v needs its correction, too."
        ),
        Misconception(
            "the step isn't divided by the root of the second moment",
            wrong.adam_without_second_moment,
            "m alone is SGD with momentum. Adam divides it by sqrt(v) + eps.",
        ),
        Misconception("eps is added inside the root", wrong.adam_eps_inside, "sqrt(v) + eps: outside, in Adam."),
        Misconception(
            "the L2 term is subtracted from the gradient",
            wrong.adam_l2_subtracted,
            "The gradient of weight_decay / 2 * w ** 2 is + weight_decay * w.",
        ),
        Misconception(
            "the L2 term is 2 * weight_decay * w",
            wrong.adam_l2_twice,
            "By convention the penalty is weight_decay / 2 * w ** 2, so the factor 2 is gone.",
        ),
    ],
    alternatives=[wrong.adam_by_scale, wrong.adam_in_place_on_copies],
    forbid=["torch.optim"],
    dtypes=[torch.float64],
    hints=[
        "One loop over the gradients, with m and v starting at zero. The two kinds differ in one line.",
        "L2: g = g + weight_decay * w, before m and v. Decoupled: w = w - lr * weight_decay * w, and g stays.",
        "m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g * g; with t from 1: "
        "w = w - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps).",
    ],
)
