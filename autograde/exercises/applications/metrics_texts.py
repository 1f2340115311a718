"""Exercises of 02_applications/11_metrics, third part: BLEU, ROUGE-L, perplexity."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception
from autograde.exercises.applications import metrics_perplexity_mistakes as unsure
from autograde.exercises.applications import metrics_text_checks as judge
from autograde.exercises.applications import metrics_text_mistakes as wrong

bleu = Exercise(
    name="bleu",
    points=4,
    cases=judge.bleu_cases,
    oracle=judge.sacre_bleu,
    forbid=["sacrebleu"],
    laws=[
        Law("It is a share, from 0 to 1", judge.a_share),
        Law("The reference itself gets 1", judge.itself_is_one),
        Law("Saying a right word again finds nothing new", judge.stuttering_is_punished),
        Law("What is missing at the end costs exp(1 - r/c)", judge.cut_is_punished),
        Law("Counts are added up over all texts before anything is divided", judge.corpus_not_sentences),
    ],
    misconceptions=[
        Misconception("n-grams aren't clipped", wrong.bleu_unclipped,
                      "'the the the' must not be perfect: an n-gram counts at most as often as one reference has it."),
        Misconception("clipping adds up the references", wrong.bleu_clipped_by_sum,
                      "The most in any *one* reference: a maximum, not a sum."),
        Misconception("only the first reference is read", wrong.bleu_first_reference,
                      "All references of a text help: take the maximum over them."),
        Misconception("matches are divided by the n-grams of the reference", wrong.bleu_recall,
                      "BLEU is precision: divide by the candidate's n-grams. What is missing is the penalty's job."),
        Misconception("the precisions are averaged arithmetically", wrong.bleu_arithmetic,
                      "The geometric mean: exp of the mean of the logarithms. One 0 makes it 0."),
        Misconception("the precisions are multiplied, without the root", wrong.bleu_product,
                      "The geometric mean of max_n numbers takes their max_n-th root."),
        Misconception("the n-grams of all orders go into one precision", wrong.bleu_pooled,
                      "One precision an order, then their geometric mean."),
        Misconception("one is added to hits and totals", wrong.bleu_add_one,
                      "A smoothing for single sentences (Lin and Och 2004). Here nothing is smoothed."),
        Misconception("orders without a match are left out", wrong.bleu_skips_zeros,
                      "If an order has no match, BLEU is 0."),
        Misconception("only single words count", wrong.bleu_words_only, "All orders from 1 to max_n."),
        Misconception("max_n is ignored", wrong.bleu_always_four, "Use max_n, not 4."),
        Misconception("the brevity penalty is missing", wrong.bleu_without_penalty,
                      "One sure word would get a perfect score. Multiply by exp(1 - r/c) if c < r."),
        Misconception("long candidates are punished instead of short ones", wrong.bleu_penalty_turned,
                      "Too many words already cost precision. The penalty is for c < r."),
        Misconception("exp(1 - r/c) rewards candidates longer than the reference", wrong.bleu_penalty_both_ways,
                      "It is at most 1: if c >= r there is no penalty."),
        Misconception("the penalty is the ratio c/r", wrong.bleu_penalty_is_ratio, "exp(1 - r/c), which falls faster."),
        Misconception("r is the longest reference", wrong.bleu_longest_reference,
                      "Of each text, the reference whose length is closest to the candidate's."),
        Misconception("r is the shortest reference", wrong.bleu_shortest_reference,
                      "NIST's first script did so. Here it is the closest length, as in the paper."),
        Misconception("of two equally close references the longer one counts", wrong.bleu_longer_of_ties,
                      "The shorter one: min over (distance, length)."),
        Misconception("every text gets a BLEU of its own, and these are averaged", wrong.bleu_of_sentences,
                      "Add up hits, totals and lengths over all texts, and compute once."),
        Misconception("n-grams longer than the shortest candidate are left out", wrong.bleu_as_short_as_the_shortest,
                      "All max_n precisions count. A text without n-grams of some length adds none, and that is all."),
        Misconception("every text gets a brevity penalty of its own", wrong.bleu_penalty_by_sentence,
                      "Add up c and r over all texts first: a short answer may be made up for by a long one."),
        Misconception("it is given in percent", wrong.bleu_in_percent, "From 0 to 1 here."),
    ],
    alternatives=[wrong.bleu_right, wrong.bleu_by_loop],
    hints=[
        "Three steps: clipped hits and totals of each order, added up over all texts; their geometric mean; the "
        "penalty.",
        "Counter does the clipping: (grams(candidate) & best).values(), where best = grams(ref1) | grams(ref2) | … "
        "takes maxima, and & takes minima.",
        "r adds up min((len(ref) for ref in refs), key=lambda n: (abs(n - len(candidate)), n)). If any hits are 0: "
        "return 0.0. Else exp(sum of log(hits/total) / max_n) * min(1, exp(1 - r/c)).",
    ],
)

rouge_l = Exercise(
    name="rouge_l",
    points=3,
    cases=judge.rouge_cases,
    oracle=judge.rapid_rouge,
    forbid=["rapidfuzz"],
    laws=[
        Law("Exchanging the texts exchanges precision and recall", judge.exchanging_exchanges),
        Law("Order counts: a text backwards has one word in common", judge.order_counts),
        Law("Words strewn in between cost precision, not recall", judge.gaps_are_free),
        Law("The third number is the harmonic mean", judge.f_is_harmonic),
    ],
    misconceptions=[
        Misconception("the longest common substring is taken", wrong.rouge_substring,
                      "A subsequence may have gaps. If x != y, the table takes the larger of its neighbours, not 0."),
        Misconception("common words are counted in any order", wrong.rouge_bag,
                      "That is ROUGE-1. The common words have to stand in the same order."),
        Misconception("different common words are counted", wrong.rouge_set,
                      "Repetitions count, and order does: the longest common subsequence."),
        Misconception("words are matched greedily from the left", wrong.rouge_greedy,
                      "An early word that stands late in the reference blocks all others. You need the table."),
        Misconception("words at the same place are counted", wrong.rouge_same_place,
                      "One word more at the beginning would shift them all."),
        Misconception("the table has no row and column of zeros in front", wrong.rouge_without_padding,
                      "A match of the first words needs a 0 to add to: (len + 1) × (len + 1)."),
        Misconception("a match adds 1 to the neighbours instead of the diagonal", wrong.rouge_matches_twice,
                      "A match uses up both tokens: table[i - 1][j - 1] + 1."),
        Misconception("precision and recall are exchanged", wrong.rouge_exchanged,
                      "Precision divides by the candidate, recall by the reference."),
        Misconception("F1 is the arithmetic mean", wrong.rouge_arithmetic, "2pr / (p + r)"),
        Misconception("F weighs recall more (beta = 1.2)", wrong.rouge_recall_weighted,
                      "Some older packages do so. Here beta = 1, as in rouge-score."),
        Misconception("recall is returned for F1", wrong.rouge_f_is_recall, "2pr / (p + r)"),
        Misconception("an empty text divides by 0", wrong.rouge_divides_by_zero, "All three are 0 then."),
        Misconception("two empty texts are a perfect match", wrong.rouge_empty_is_one, "0/0 is 0 here."),
        Misconception("letters are compared instead of tokens", wrong.rouge_of_letters, "A token is one item."),
        Misconception("capitals are changed to small letters", wrong.rouge_lower_case,
                      "Tokens come as they should be compared."),
    ],
    alternatives=[wrong.rouge_right, wrong.rouge_recursive],
    hints=[
        "How long is the longest common subsequence of two texts, if you know the answer for all shorter beginnings?",
        "table[i][j] is the length for the first i and j tokens: diagonal + 1 where the tokens agree, else the larger "
        "of above and left. Row 0 and column 0 are 0.",
        "p = l / len(candidate), r = l / len(reference), f = 2 * l / (len(candidate) + len(reference)); if l == 0: "
        "(0.0, 0.0, 0.0).",
    ],
)

perplexity = Exercise(
    name="perplexity",
    points=3,
    cases=judge.perplexity_cases,
    oracle=judge.causal_lm_perplexity,
    forbid=["transformers"],
    rtol=1e-3,
    laws=[
        Law("It is never below 1", judge.at_least_one),
        Law("Who knows nothing has the vocabulary's size", judge.knowing_nothing),
        Law("A constant on all logits of a place changes nothing", judge.constant_is_neutral),
        Law("What is predicted where nothing counts doesn't matter", judge.ignored_is_silent),
        Law("All tokens weigh alike, whatever text they stand in", judge.tokens_weigh_alike),
    ],
    misconceptions=[
        Misconception("nothing is shifted: each token is compared with its own place", unsure.ppl_unshifted,
                      "Place t predicts token t + 1: logits[:, :-1] against labels[:, 1:]."),
        Misconception("the shift goes the wrong way", unsure.ppl_shifted_back,
                      "logits[:, :-1] against labels[:, 1:], not the reverse."),
        Misconception("each text's mean is taken first, and then the mean of the texts", unsure.ppl_of_row_means,
                      "A token of a short text would weigh more. One mean over all tokens that count."),
        Misconception("perplexities of texts are averaged", unsure.ppl_mean_of_perplexities,
                      "Average the surprise of all tokens, then take exp once."),
        Misconception("1/p is averaged over the tokens", unsure.ppl_mean_over_tokens,
                      "The geometric mean: exp of the mean of -log p."),
        Misconception("padding is counted, as token 0", unsure.ppl_over_padding, "Leave out labels of -100."),
        Misconception("the sum is divided by all places, padding included", unsure.ppl_divided_by_all,
                      "Divide by the number of labels that count."),
        Misconception("first labels are counted although nothing predicts them", unsure.ppl_counts_first_label,
                      "Shift first, then count: labels[:, 1:] != -100."),
        Misconception("the loss is returned without exp", unsure.ppl_is_loss, "exp of the mean."),
        Misconception("2 is raised to nats", unsure.ppl_two_to_nats,
                      "2 goes with log2, e with log. Mixed, the number is neither."),
        Misconception("exp is taken of the sum", unsure.ppl_of_sum, "Of the mean: a long text isn't worse."),
        Misconception("the sign is wrong", unsure.ppl_inverted, "exp(-mean of log p), which is at least 1."),
        Misconception("exp is taken of logits as they are", unsure.ppl_naive_softmax,
                      "exp(89) is infinite in float32: use log_softmax or logsumexp."),
        Misconception("a small number is added to the probabilities", unsure.ppl_with_floor,
                      "log_softmax needs no such crutch."),
        Misconception("a softmax is taken before the log_softmax", unsure.ppl_softmax_twice, "One is enough."),
        Misconception("logits are taken for log-probabilities", unsure.ppl_without_softmax,
                      "They add up to nothing in particular: log_softmax first."),
    ],
    alternatives=[unsure.ppl_right, unsure.ppl_by_mask, unsure.ppl_by_cross_entropy, unsure.ppl_by_loop],
    hints=[
        "Which logits say something about token t? And about the very first token?",
        "logits[:, :-1].float().log_softmax(-1) against labels[:, 1:]; gather can't read -100, so select or clamp "
        "first.",
        "kept = labels[:, 1:] != -100; picked = log_probs.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]; "
        "(-picked[kept].mean()).exp()",
    ],
    dtypes=(torch.float64, torch.bfloat16),
)
