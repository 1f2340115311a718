"""Exercises of 01_transformer/05_normalization: LayerNorm, RMSNorm, BatchNorm, and the block around them."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception, keeps_dtype
from autograde.exercises.transformer import normalization_checks as checks
from autograde.exercises.transformer import normalization_mistakes as wrong

_READY_MADE = [f"torch.nn.functional.{name}_norm" for name in ("layer", "rms", "batch", "group", "instance")]

layer_norm = Exercise(
    name="layer_norm",
    points=3,
    cases=checks.layer_cases,
    oracle=checks.torch_layer_norm,
    laws=[
        Law("Adding one number to a whole row changes nothing", checks.layer_shift),
        Law("Every row is normalised by itself", checks.own_row),
        Law("Without weight and bias a row has mean 0, and its squares have mean 1", checks.layer_moments),
        Law("First the weight stretches, then the bias shifts", checks.layer_affine),
        Law("Gives back the dtype of x", keeps_dtype),
    ],
    misconceptions=[
        Misconception(
            "the variance is the unbiased one, divided by d - 1",
            wrong.layer_unbiased,
            "Tensor.var and .std divide by d - 1 unless you pass correction=0. Normalisation divides by d.",
        ),
        Misconception(
            "eps is added to the standard deviation, outside the root",
            wrong.layer_eps_outside,
            "sqrt(variance + eps): eps belongs to the variance.",
        ),
        Misconception(
            "there is no eps", wrong.layer_without_eps, "A row of equal numbers has variance 0. What is 0 / 0?"
        ),
        Misconception("eps is always 1e-5, whatever is passed", wrong.layer_eps_fixed, "`eps` is a parameter: use it."),
        Misconception(
            "the row is divided by its variance rather than by the root of it",
            wrong.layer_by_variance,
            "Variance has the unit of x squared. Take its root.",
        ),
        Misconception(
            "the statistics run over all positions of an example",
            wrong.layer_over_example,
            "In a Transformer every token is normalised alone: over the last dimension only.",
        ),
        Misconception(
            "one mean and one variance serve the whole tensor",
            wrong.layer_over_everything,
            "mean() without a dim runs over everything. Use dim=-1, keepdim=True.",
        ),
        Misconception(
            "the statistics run over the first dimension, as in BatchNorm",
            wrong.layer_over_batch,
            "LayerNorm never looks at other examples: dim=-1.",
        ),
        Misconception(
            "the statistics run over the positions",
            wrong.layer_over_positions,
            "The features are the last dimension, the positions the one before it.",
        ),
        Misconception(
            "the mean isn't subtracted from x, although the variance is taken about it",
            wrong.layer_not_centred,
            "Centre first: x - mean, then divide.",
        ),
        Misconception(
            "the row is divided by its root mean square, and no mean is subtracted",
            wrong.layer_root_mean_square,
            "That is RMSNorm, which comes next. LayerNorm subtracts the mean first.",
        ),
        Misconception(
            "the bias is added before the weight is multiplied",
            wrong.layer_bias_first,
            "normalised * weight + bias, in this order.",
        ),
        Misconception("the bias is left out", wrong.layer_without_bias, "Where a bias is given, add it at the end."),
        Misconception("the weight is left out", wrong.layer_without_weight, "Multiply by `weight` where it is given."),
        Misconception(
            "the row is multiplied by 1 + weight",
            wrong.layer_one_plus_weight,
            "Gemma stores weights that way. Here the weight is the factor itself.",
        ),
        Misconception(
            "the numbers are right, but in another precision than x",
            wrong.layer_in_float64,
            "float32 in, float32 out; float64 in, float64 out: end with .to(x.dtype).",
        ),
    ],
    alternatives=[wrong.layer_by_loop, wrong.layer_by_var_mean, wrong.layer_by_second_moment],
    forbid=_READY_MADE,
    dtypes=[torch.float64],
    hints=[
        "Each token has d features. Which two numbers of those d tell you where they lie and how far they spread?",
        "mean = x.mean(-1, keepdim=True), and the variance is the mean of (x - mean) ** 2 over the same dimension.",
        "y = (x - mean) / torch.sqrt(variance + eps); then y * weight if weight is not None, and + bias likewise.",
    ],
)


rms_norm = Exercise(
    name="rms_norm",
    points=2,
    cases=checks.rms_cases,
    oracle=checks.torch_rms_norm,
    laws=[
        Law("A row ten times as large gives the same answer", checks.rms_scale),
        Law("Without weight the squares of a row have mean 1", checks.rms_moment),
        Law("Every row is normalised by itself", checks.own_row),
        Law("Nothing is subtracted: a shifted row gives another answer", checks.rms_feels_shift),
        Law("Gives back the dtype of x", keeps_dtype),
    ],
    misconceptions=[
        Misconception(
            "the mean is subtracted first, as in LayerNorm",
            wrong.rms_centred,
            "RMSNorm leaves the mean alone: that is what it saves.",
        ),
        Misconception(
            "the squares are summed instead of averaged, which makes vectors of length 1",
            wrong.rms_of_sum,
            "The M of RMS is a mean: divide the sum of squares by d.",
        ),
        Misconception(
            "the row is divided by the mean square, without the root",
            wrong.rms_without_root,
            "The R of RMS is a root.",
        ),
        Misconception(
            "eps is added outside the root", wrong.rms_eps_outside, "sqrt(mean of squares + eps): inside the root."
        ),
        Misconception("there is no eps", wrong.rms_without_eps, "A row of zeros would be divided by zero."),
        Misconception("eps is always 1e-6, whatever is passed", wrong.rms_eps_fixed, "`eps` is a parameter: use it."),
        Misconception(
            "the mean square runs over all positions of an example",
            wrong.rms_over_example,
            "Every token by itself: dim=-1.",
        ),
        Misconception(
            "one mean square serves the whole tensor",
            wrong.rms_over_everything,
            "mean() without a dim runs over everything. Use dim=-1, keepdim=True.",
        ),
        Misconception(
            "the mean square runs over the first dimension", wrong.rms_over_batch, "Features are the last dimension."
        ),
        Misconception("the weight is left out", wrong.rms_without_weight, "Multiply with `weight` where it is given."),
        Misconception(
            "the row is multiplied by 1 + weight",
            wrong.rms_one_plus_weight,
            "Gemma stores weights that way. LLaMA's weight is the factor itself.",
        ),
        Misconception("the row is divided by the weight", wrong.rms_divided_by_weight, "The weight is a factor."),
        Misconception(
            "the squares are taken in the dtype of x, and overflow in float16",
            wrong.rms_in_dtype_of_x,
            "float16 ends at 65,504, which 300 squared exceeds. Start with x.float().",
        ),
        Misconception(
            "the numbers are right, but a float16 x comes back as float32",
            wrong.rms_not_cast_back,
            "Compute in float32, but end with .to(x.dtype): the next layer expects what came in.",
        ),
    ],
    alternatives=[wrong.rms_by_norm, wrong.rms_by_einsum],
    forbid=[*_READY_MADE, "transformers"],
    dtypes=[torch.float64],
    hints=[
        "Read the name backwards: square, mean, root.",
        "x.square().mean(-1, keepdim=True) is one number a token. eps is added to it, before the root.",
        "With wide = x.float(): y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps), times the weight "
        "if there is one, then .to(x.dtype).",
    ],
)


batch_norm = Exercise(
    name="batch_norm",
    points=4,
    cases=checks.batch_cases,
    oracle=checks.torch_batch_norm,
    laws=[
        Law("In training every channel comes out with mean 0 and mean square 1", checks.batch_moments),
        Law("In evaluation an example's answer is its own affair", checks.batch_alone),
        Law("In evaluation the running statistics stay as they are", checks.batch_still),
        Law("momentum 1 takes over the batch's statistics, momentum 0 none of them", checks.batch_momentum),
    ],
    misconceptions=[
        Misconception(
            "the batch is normalised by its unbiased variance",
            wrong.batch_unbiased,
            "Two variances: the biased one normalises the batch, the unbiased one goes into the running variance.",
        ),
        Misconception(
            "the running variance takes in the biased variance",
            wrong.batch_biased_running,
            "Two variances: the biased one normalises the batch, the unbiased one goes into the running variance.",
        ),
        Misconception(
            "momentum is the share that the old running statistics keep",
            wrong.batch_momentum_swapped,
            "In torch momentum is the weight of the new batch: (1 - momentum) * old + momentum * new.",
        ),
        Misconception(
            "evaluation normalises by the batch's statistics as well",
            wrong.batch_always_training,
            "With training=False use running_mean and running_var: then a single example has an answer.",
        ),
        Misconception(
            "training normalises by the running statistics",
            wrong.batch_never_training,
            "With training=True the batch's own mean and variance are used.",
        ),
        Misconception(
            "training first updates the running statistics and then normalises by them",
            wrong.batch_normalises_by_running,
            "The running statistics are for later. The batch is normalised by its own.",
        ),
        Misconception(
            "the running statistics move in evaluation, too",
            wrong.batch_updates_in_eval,
            "Evaluation must not learn anything: hand them back as they came.",
        ),
        Misconception(
            "the running statistics never move",
            wrong.batch_never_updates,
            "In training: new = (1 - momentum) * old + momentum * batch.",
        ),
        Misconception(
            "eps is added outside the root", wrong.batch_eps_outside, "sqrt(variance + eps): inside the root."
        ),
        Misconception(
            "weight and bias are left out", wrong.batch_without_affine, "One weight and one bias a channel, at the end."
        ),
        Misconception(
            "the weight is left out",
            wrong.batch_without_weight,
            "Multiply each channel by its weight, if there is one.",
        ),
        Misconception("the bias is left out", wrong.batch_without_bias, "Where a bias is given, add it at the end."),
        Misconception("eps is always 1e-5, whatever is passed", wrong.batch_eps_fixed, "`eps` is a parameter: use it."),
        Misconception("there is no eps", wrong.batch_without_eps, "eps is added to the variance, under the root."),
        Misconception(
            "momentum is always 0.1, whatever is passed",
            wrong.batch_momentum_fixed,
            "`momentum` is a parameter: use it.",
        ),
        Misconception(
            "each position of a sentence has statistics of its own",
            wrong.batch_per_position,
            "A channel's statistics run over examples *and* positions: dimensions 0 and 2.",
        ),
        Misconception(
            "the channels of an example are normalised, as in LayerNorm",
            wrong.batch_over_features,
            "BatchNorm looks down a channel, across the examples. The channels are dimension 1.",
        ),
        Misconception(
            "all channels share one mean and one variance",
            wrong.batch_over_everything,
            "One mean and one variance a channel: leave dimension 1 out of the sum.",
        ),
    ],
    alternatives=[wrong.batch_by_channel, wrong.batch_by_transpose],
    forbid=_READY_MADE,
    dtypes=[torch.float64],
    hints=[
        "For each channel: which numbers of x belong to it? Over those you need a mean and a variance.",
        "dims = [0] for [n, c] and [0, 2] for [n, c, length]. In training use x.mean(dims) and the biased variance; "
        "in evaluation the running ones. Reshape them to [1, c] or [1, c, 1], so that they broadcast.",
        "new_mean = (1 - momentum) * running_mean + momentum * x.mean(dims), and the same for the variance with "
        "x.var(dims), which is unbiased. Build new tensors instead of changing those that came in.",
    ],
)


pre_norm_block = Exercise(
    name="pre_norm_block",
    points=3,
    cases=checks.block_cases,
    oracle=checks.torch_encoder_layer,
    probe=checks.run_block,
    laws=[
        Law("If both parts add nothing, x comes out as it went in", checks.block_passes_on),
        Law(
            "Adding one number to a token adds it to the answer: nothing on the main road is normalised",
            checks.block_passes_shift,
        ),
        Law("The feed-forward part hears what attention has added", checks.block_second_hears_first),
    ],
    misconceptions=[
        Misconception(
            "each norm comes after its sum, as in the first Transformer (post-norm)",
            wrong.block_post_norm,
            "Pre-norm normalises what goes into attention and feed-forward, never the sum itself.",
        ),
        Misconception(
            "the residual starts from the normalised tokens",
            wrong.block_residual_from_norm,
            "Add to x itself. The norm is for the branch alone.",
        ),
        Misconception(
            "the residual around attention is missing",
            wrong.block_without_first_residual,
            "h = x + attention(…).",
        ),
        Misconception(
            "the residual around the feed-forward part is missing",
            wrong.block_without_second_residual,
            "The result is h + feed_forward(…).",
        ),
        Misconception(
            "the second residual starts from x again, so that what attention added is lost",
            wrong.block_second_residual_from_x,
            "The second sum starts from h, where attention has left its part.",
        ),
        Misconception(
            "attention and feed-forward both read x, side by side",
            wrong.block_parallel,
            "Some models do that (GPT-J, PaLM). Here the feed-forward part reads h.",
        ),
        Misconception(
            "the feed-forward part reads h without a norm",
            wrong.block_without_second_norm,
            "Each part has a norm of its own in front.",
        ),
        Misconception(
            "attention reads x without a norm",
            wrong.block_without_first_norm,
            "Each part has a norm of its own in front.",
        ),
        Misconception(
            "the two norms are swapped", wrong.block_norms_swapped, "norm1 belongs to attention, norm2 to the rest."
        ),
        Misconception("norm1 is used twice", wrong.block_one_norm_twice, "The second norm has weights of its own."),
        Misconception(
            "each part's answer is normalised instead of its input",
            wrong.block_norm_after_part,
            "norm first, then attention: attention(norm1(x)).",
        ),
        Misconception(
            "the feed-forward part comes before attention",
            wrong.block_feed_forward_first,
            "First the tokens talk to each other, then each thinks for itself.",
        ),
        Misconception(
            "norm2 stands at the end of the block",
            wrong.block_norm_at_the_end,
            "feed_forward(norm2(h)), and nothing after the last sum.",
        ),
    ],
    alternatives=[wrong.block_by_loop, wrong.block_in_place_on_a_copy],
    dtypes=[torch.float64],
    hints=[
        "Think of a main road for x and two side roads. Where on a side road does the norm stand?",
        "The first side road: h = x + attention(norm1(x)).",
        "The second starts where the first joined: return h + feed_forward(norm2(h)).",
    ],
)
