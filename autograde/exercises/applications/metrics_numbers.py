"""Exercises of 02_applications/11_metrics, second part: regression, similarity, retrieval."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception
from autograde.exercises.applications import metrics_number_checks as judge
from autograde.exercises.applications import metrics_number_mistakes as wrong

regression_metrics = Exercise(
    name="regression_metrics",
    points=3,
    cases=judge.regression_cases,
    oracle=judge.sklearn_regression,
    forbid=["sklearn"],
    rtol=1e-3,  # an error of 30 at targets of ten thousand, in float32
    atol=1e-4,
    laws=[
        Law("RMSE² is MSE, and MAE is never above RMSE", judge.root_and_square),
        Law("In other units the errors scale, and R² stays", judge.units),
        Law("The same number added to both sides changes nothing", judge.only_gaps_count),
        Law("Predicting the mean gives an R² of 0, and worse a negative one", judge.mean_is_zero),
        Law("A constant bias costs R²", judge.shift_is_punished),
    ],
    misconceptions=[
        Misconception("[n, 1] minus [n] is left to broadcasting, which makes [n, n]", wrong.regression_broadcast,
                      "Bring both to one shape first: predictions.reshape(targets.shape)."),
        Misconception("R² is the squared correlation", wrong.r2_squared_correlation,
                      "Equal for a least-squares line on its own data only. Predictions that are all 50 too high "
                      "correlate perfectly."),
        Misconception("R² is the explained variance, which forgives a constant bias", wrong.r2_explained_variance,
                      "SS_res is the sum of the squared residuals, without subtracting their mean."),
        Misconception("R² is the variance of the predictions over that of the targets", wrong.r2_ratio_of_variances,
                      "The bank says so, and is wrong: predictions need not be near the targets to vary as much."),
        Misconception("a negative R² is raised to 0", wrong.r2_never_negative,
                      "It isn't a square: worse than the mean is below 0."),
        Misconception("predictions and targets have exchanged their roles in R²", wrong.r2_roles_swapped,
                      "SS_tot is about the targets and their mean."),
        Misconception("SS_tot is measured from 0", wrong.r2_against_zero,
                      "Subtract the mean of the targets: R² compares with the best constant."),
        Misconception("R² divides the mean square by the unbiased variance", wrong.r2_of_unbiased_variance,
                      "Both by n, or two sums: torch.var divides by n - 1 unless it is told otherwise."),
        Misconception("R² lacks the 1 -", wrong.r2_without_one_minus, "1 - SS_res / SS_tot."),
        Misconception("targets that are all alike make R² divide by 0", wrong.r2_divides_by_zero,
                      "Then R² is 1 for perfect predictions and 0 for all others."),
        Misconception("targets that are all alike give an R² of 0, perfect or not", wrong.r2_zero_for_constant,
                      "Perfect predictions get 1, always."),
        Misconception("squares are summed, not averaged", wrong.mse_is_sum, "The M is for mean."),
        Misconception("squares are divided by n - 1", wrong.mse_unbiased, "Nothing was estimated from them: by n."),
        Misconception("RMSE is the mean of the roots", wrong.rmse_is_mean_of_roots,
                      "First the mean, then the root. The other way round is MAE."),
        Misconception("RMSE is the standard deviation of the errors", wrong.rmse_without_bias,
                      "Don't subtract their mean: a bias is an error, too."),
        Misconception("MAE adds up errors with their signs", wrong.mae_signed, "The A is for absolute."),
        Misconception("MAE takes the absolute value after the mean", wrong.mae_of_sum,
                      "Errors of +5 and -5 don't cancel: absolute value first."),
    ],
    alternatives=[wrong.regression_right, wrong.regression_by_loop, wrong.regression_of_tensors],
    hints=[
        "What would the best *constant* prediction be, and how large is its squared error? R² compares with that.",
        "gap = predictions.reshape(targets.shape) - targets; SS_res = (gap**2).sum(); SS_tot = ((targets - "
        "targets.mean())**2).sum().",
        "r2 = 1 - ss_res / ss_tot if ss_tot > 0 else float(ss_res == 0)",
    ],
    dtypes=(torch.float64,),
)

cosine_similarity = Exercise(
    name="cosine_similarity",
    points=2,
    cases=judge.cosine_cases,
    oracle=judge.sklearn_cosine,
    forbid=["sklearn", "torch.nn.functional.cosine_similarity"],
    laws=[
        Law("Lengths don't count, only directions", judge.lengths_dont_count),
        Law("A vector has similarity 1 with itself, and 0 if it is zero", judge.with_itself),
        Law("The opposite vector has the opposite similarity", judge.opposite),
        Law("Rows belong to a, columns to b", judge.exchanged),
        Law("Gives back the dtype of a", judge.keeps_kind),
    ],
    misconceptions=[
        Misconception("the vectors are not scaled to length 1", wrong.dot_products,
                      "The dot product grows with the lengths: divide by both."),
        Misconception("only b is scaled to length 1", wrong.cosine_only_b_scaled, "Divide by the length of a as well."),
        Misconception("it is divided by the squared lengths", wrong.cosine_of_squares, "Take the roots."),
        Misconception("a vector of zeros gives NaN", wrong.cosine_nan, "Its similarity with everything is 0 here."),
        Misconception("it is the cosine distance", wrong.cosine_distance, "The similarity, without 1 -."),
        Misconception("the sign is lost", wrong.cosine_without_sign, "Opposite vectors have similarity -1."),
        Misconception("each vector's mean is subtracted first", wrong.cosine_of_centred,
                      "That is Pearson's correlation."),
        Misconception("lengths are taken over the columns", wrong.cosine_over_columns,
                      "A vector is a row: dim=-1."),
        Misconception("one length is taken of the whole batch", wrong.cosine_of_whole, "Each row has its own."),
        Misconception("rows belong to b, columns to a", wrong.cosine_turned, "[n, m]: entry [i, j] is a[i] with b[j]."),
        Misconception("only row i with row i is compared", wrong.cosine_couples,
                      "Every row of a with every row of b: a matrix product."),
        Misconception("it is the Euclidean distance", wrong.euclidean, "Scale to length 1 and multiply."),
    ],
    alternatives=[wrong.cosine_right, wrong.cosine_by_loop, wrong.cosine_by_normalize],
    hints=[
        "If all vectors had length 1, one matrix product would do.",
        "Divide each row by its norm(dim=-1, keepdim=True). What should happen where that is 0?",
        "a = a / a.norm(dim=-1, keepdim=True).clamp(min=1e-12), the same for b, then a @ b.T",
    ],
    dtypes=(torch.float64, torch.bfloat16),
)

top_k_accuracy = Exercise(
    name="top_k_accuracy",
    points=2,
    cases=judge.top_k_cases,
    oracle=judge.sklearn_top_k,
    forbid=["sklearn"],
    laws=[
        Law("It never falls with k, and ends at 1", judge.grows_with_k),
        Law("k = 1 is the accuracy", judge.one_is_accuracy),
        Law("The names of the classes don't matter", judge.classes_may_be_renamed),
        Law("It is the mean over the rows, each judged alone", judge.rows_stand_alone),
    ],
    misconceptions=[
        Misconception("the k worst are taken", wrong.topk_worst, "The largest scores are the best."),
        Misconception("k is ignored", wrong.topk_one, "The first k count, not the first alone."),
        Misconception("only k - 1 places count", wrong.topk_one_less, "At place k it is still a hit."),
        Misconception("k + 1 places count", wrong.topk_one_more, "Fewer than k better scores: < k, not <= k."),
        Misconception("a k larger than the number of classes is passed on to topk", wrong.topk_unclamped,
                      "min(k, number of classes)"),
        Misconception("hits are counted, not averaged", wrong.topk_counted, "Divide by the number of rows."),
        Misconception("hits are divided by k", wrong.topk_precision,
                      "That is precision@k. A row is a hit or it isn't."),
        Misconception("a target counts if any row has it among its best", wrong.topk_of_any_row,
                      "Compare each row's target with that row's best: targets[:, None]."),
        Misconception("the k best of the whole batch are taken", wrong.topk_over_whole, "Each row has its own k best."),
        Misconception("argsort at the target's place is read as the target's rank", wrong.topk_order_for_rank,
                      "argsort[i] is the class at place i. You want the place of a class: count the better scores."),
        Misconception("it is the error, not the accuracy", wrong.topk_error, "The share of hits, without 1 -."),
    ],
    alternatives=[wrong.topk_right, wrong.topk_by_rank, wrong.topk_by_sorting],
    hints=[
        "Of a row, you only need to know how many classes score higher than the target.",
        "own = scores.gather(1, targets[:, None]); (scores > own).sum(1) is the number of better ones.",
        "((scores > own).sum(1) < k).double().mean()",
    ],
    dtypes=(torch.float64,),
)
