"""Exercises of 02_applications/11_metrics: counting hits, ranking, regression, texts, language models, retrieval."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception
from autograde.exercises.applications import metrics_class_checks as judge
from autograde.exercises.applications import metrics_class_mistakes as wrong
from autograde.exercises.applications import metrics_numbers as numbers
from autograde.exercises.applications import metrics_texts as texts

confusion_matrix = Exercise(
    name="confusion_matrix",
    points=2,
    cases=judge.confusion_cases,
    oracle=judge.sklearn_confusion,
    forbid=["sklearn"],
    laws=[
        Law("Every example is counted once", judge.counts_everything),
        Law("A row adds up to how often its class occurs", judge.rows_are_the_truth),
        Law("Truth and prediction exchanged give the transpose", judge.swapping_transposes),
        Law("The same examples twice give twice the counts", judge.twice_is_double),
    ],
    misconceptions=[
        Misconception("rows are predictions and columns the truth", wrong.confusion_transposed,
                      "Here, as in scikit-learn, row i is true class i. Other books have it the other way round."),
        Misconception("a pair that occurs several times is counted once", wrong.confusion_assigned,
                      "matrix[t, p] += 1 with tensors as indices writes a repeated place only once. Use bincount, or "
                      "index_put_ with accumulate=True."),
        Misconception("the last class stands first", wrong.confusion_flipped,
                      "Class 0 is row 0. (Textbooks draw the positive class first; the code counts from 0.)"),
        Misconception("only the classes that occur get a row", wrong.confusion_of_present,
                      "The matrix is n_classes × n_classes, with zeros for classes nobody saw."),
        Misconception("bincount ends with the largest pair that occurs", wrong.confusion_without_minlength,
                      "Give it minlength=n_classes**2."),
        Misconception("classes are counted from 1", wrong.confusion_from_one, "Class 0 is the first one."),
        Misconception("only right answers are counted", wrong.confusion_hits_only,
                      "The errors beside the diagonal are what the matrix is for."),
        Misconception("only wrong answers are counted", wrong.confusion_errors_only,
                      "Right answers stand on the diagonal."),
        Misconception("rows are turned into shares", wrong.confusion_shares, "Leave them as counts."),
        Misconception("the counts are divided by the number of examples", wrong.confusion_share_of_all,
                      "Leave them as counts."),
        Misconception("the counts are floating-point numbers", wrong.confusion_as_floats,
                      "Counts are whole numbers: dtype=torch.int64."),
        Misconception("each class gets its own TN, FP, FN, TP", wrong.confusion_one_against_rest,
                      "That is one 2 × 2 table a class. Here one table holds all classes."),
    ],
    alternatives=[wrong.confusion_by_bincount, wrong.confusion_by_one_hot, wrong.confusion_by_loop],
    hints=[
        "There are n_classes² possible pairs (truth, prediction). Can you give each pair a number?",
        "targets * n_classes + predictions is the pair's place in the matrix, row by row. Count how often each occurs.",
        "torch.bincount(targets * n_classes + predictions, minlength=n_classes**2).view(n_classes, n_classes)",
    ],
)

precision_recall_f1 = Exercise(
    name="precision_recall_f1",
    points=4,
    cases=judge.prf_cases,
    oracle=judge.sklearn_prf,
    forbid=["sklearn"],
    laws=[
        Law("Every number lies between 0 and 1", judge.between_zero_and_one),
        Law("F1 of a class lies between the smaller of the two and their geometric mean", judge.harmonic_is_low),
        Law("Micro precision, recall and F1 are all the accuracy", judge.micro_is_accuracy),
        Law("Macro is the plain mean over all classes, of F1 as well", judge.macro_is_mean),
        Law("Weighted recall is the accuracy", judge.weighted_recall_is_accuracy),
        Law("Rows and columns exchanged exchange precision and recall", judge.transposing_swaps),
    ],
    misconceptions=[
        Misconception("precision and recall are exchanged", wrong.prf_swapped,
                      "Precision divides by what was *called* the class, a column; recall by what *is* it, a row."),
        Misconception("F1 is the arithmetic mean", wrong.prf_arithmetic,
                      "The harmonic mean: 2pr / (p + r). A model that finds nothing must not get 0.5."),
        Misconception("F1 is the geometric mean", wrong.prf_geometric, "The harmonic mean: 2pr / (p + r)."),
        Misconception("0/0 gives NaN", wrong.prf_nan,
                      "A class that is never predicted has precision 0 here, one that never occurs recall 0."),
        Misconception("0/0 counts as 1", wrong.prf_one, "In this course 0/0 is 0, scikit-learn's default as well."),
        Misconception("macro skips classes that never occur", wrong.prf_skips_absent,
                      "All classes of the matrix count, with 0 for what is 0/0."),
        Misconception("macro skips classes that neither occur nor are predicted", wrong.prf_skips_unseen,
                      "scikit-learn does so unless it is given `labels`. Here every class of the matrix counts."),
        Misconception("macro and weighted F1 are computed from the averaged precision and recall",
                      wrong.prf_f1_of_means,
                      "Average the F1 of the classes. F1 of the averages is another number."),
        Misconception("macro F1 is computed from macro precision and macro recall", wrong.prf_f1_of_macro_means,
                      "Average the F1 of the classes. Both definitions are in use (Opitz and Burst 2019, "
                      "arXiv:1911.03347), so say which."),
        Misconception("weights are how often a class is predicted", wrong.prf_weights_of_columns,
                      "The weight is how often the class occurs: the sum of its row."),
        Misconception("weighted gives all classes the same weight", wrong.prf_weighted_is_macro,
                      "That is macro. Weighted counts a class as often as it occurs."),
        Misconception("micro is the mean over the classes", wrong.prf_micro_is_macro,
                      "Micro adds up the counts of all classes first, and divides once."),
        Misconception("macro adds up the counts first", wrong.prf_macro_is_micro,
                      "That is micro. Macro takes the mean of the classes' values."),
        Misconception("micro leaves out class 0, as if it were the negative class", wrong.prf_micro_without_first,
                      "Every class counts here. Leaving one out is usual where it means 'nothing', as in entity "
                      "recognition, and has to be said."),
        Misconception('"none" has one row a class', wrong.prf_none_by_class, "[3, classes]: precision, recall, F1."),
    ],
    alternatives=[wrong.prf_right, wrong.prf_by_loop, wrong.prf_with_nan_to_num],
    hints=[
        "Of a class you need three numbers: hits (the diagonal), how often it was called (a column), how often it "
        "occurs (a row).",
        "F1 = 2 hits / (called + true), which is 2pr / (p + r) with less to go wrong. Divide by count.clamp(min=1), "
        "and 0/0 becomes 0/1.",
        "each = torch.stack([hits / called.clamp(min=1), hits / true.clamp(min=1), 2 * hits / (called + "
        "true).clamp(min=1)]); macro: each.mean(1); weighted: (each * true).sum(1) / true.sum(); micro: hits.sum() / "
        "matrix.sum(), three times.",
    ],
)

roc_auc = Exercise(
    name="roc_auc",
    points=3,
    cases=judge.auc_cases,
    oracle=judge.sklearn_auc,
    forbid=["sklearn"],
    laws=[
        Law("Only the order of the scores counts", judge.only_order_counts),
        Law("Scores that tie count half", judge.ties_count_half),
        Law("Scores with the other sign give 1 minus the area", judge.turning_round),
        Law("Five times as many negatives change nothing", judge.rare_positives_change_nothing),
    ],
    misconceptions=[
        Misconception("a tie counts as won", wrong.auc_tie_wins,
                      "Then a model that gives everybody the same score would be perfect. A tie counts half."),
        Misconception("a tie counts as lost", wrong.auc_tie_loses, "A tie counts half."),
        Misconception("tied examples are walked one by one, in the order of the input",
                      wrong.auc_in_order_of_input,
                      "The order of the rows must not matter. All examples with one score make one step."),
        Misconception("positives and negatives are exchanged", wrong.auc_upside_down,
                      "Label 1 is the positive class, and should have the higher scores."),
        Misconception("an area below one half is turned round", wrong.auc_at_least_half,
                      "A model that is worse than chance should be told so."),
        Misconception("the Gini coefficient is returned", wrong.gini, "Gini = 2 AUC - 1."),
        Misconception("the pairs are divided by the number of all pairs, n²", wrong.auc_of_all_pairs,
                      "Only pairs of a positive and a negative count: divide by their number."),
        Misconception("a sigmoid in float32 comes first", wrong.auc_squashed,
                      "sigmoid(20) and sigmoid(40) are both 1.0 in float32: ties. The order is all you need."),
        Misconception("scores are turned into decisions first", wrong.auc_of_decisions,
                      "AUC looks at all thresholds. Keep the scores."),
        Misconception("each positive is compared with one negative only", wrong.auc_of_couples,
                      "Every positive against every negative: scores[:, None] - scores[None, :]."),
        Misconception("it is the average precision", wrong.average_precision,
                      "That is the area under the precision-recall curve: another metric, also useful."),
    ],
    alternatives=[wrong.auc_by_pairs, wrong.auc_by_ranks, wrong.auc_by_curve],
    hints=[
        "Take any positive and any negative. How often does the positive have the higher score?",
        "scores[labels == 1][:, None] against scores[labels == 0] gives all pairs at once.",
        "gap = positives[:, None] - negatives; ((gap > 0) + 0.5 * (gap == 0)).mean() in floating point.",
    ],
    dtypes=(torch.float64,),
)

regression_metrics = numbers.regression_metrics
bleu = texts.bleu
rouge_l = texts.rouge_l
perplexity = texts.perplexity
cosine_similarity = numbers.cosine_similarity
top_k_accuracy = numbers.top_k_accuracy
