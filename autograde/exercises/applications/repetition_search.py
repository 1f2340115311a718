"""Exercises of 02_applications/03_repetition that choose the next token: n-grams that may not come twice, and
contrastive search."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception, keeps_dtype
from autograde.exercises.applications import repetition_search_checks as checks
from autograde.exercises.applications import repetition_search_mistakes as wrong
from autograde.exercises.applications.repetition_checks import rows_alone

no_repeat_ngram = Exercise(
    name="no_repeat_ngram",
    points=3,
    cases=checks.ngram_cases,
    oracle=checks.hf_no_repeat,
    laws=[
        Law("A logit is left alone or becomes -inf", checks.only_banned),
        Law("A text written under the rule has no n-gram twice", checks.never_twice),
        Law("A text in which no token came twice is free to go on", checks.fresh_text_is_free),
        Law("n = 1 forbids every token that occurred", checks.ones_ban_what_occurred),
        Law("A text of fewer than n tokens forbids nothing", checks.short_text_is_free),
        Law("Each text of a batch has its own history", rows_alone),
        Law("The result has the dtype of the logits", keeps_dtype),
    ],
    misconceptions=[
        Misconception("the last n tokens are looked up, so that n-grams of n + 1 are forbidden", wrong.window_off,
                      "The token to come is itself part of the n-gram: only n - 1 tokens of it stand there already."),
        Misconception("only the last n - 2 tokens are looked up, so that shorter n-grams are forbidden",
                      wrong.window_short, "The next token is one of the n: n - 1 stand there already."),
        Misconception("ids[-(n - 1):] is taken for the last n - 1 tokens, also where n is 1", wrong.minus_zero,
                      "-0 is 0: ids[-0:] is the whole text. Count from the front: ids[length - n + 1:]."),
        Misconception("the n - 1 tokens are compared without their order", wrong.unordered,
                      "'ab' and 'ba' are different beginnings."),
        Misconception("the latest n-gram of the text is left out", wrong.latest_gram_missed,
                      "There are length - n + 1 n-grams in a text. After 'xaa' with n = 2, 'a' is forbidden."),
        Misconception("the text is cut into n-grams that don't overlap", wrong.in_pieces,
                      "n-grams start at every token, not at every n-th."),
        Misconception("only what followed the first time is forbidden", wrong.first_alone,
                      "The beginning may have been continued in several ways: each of them is used up."),
        Misconception("only what followed the last time is forbidden", wrong.latest_alone,
                      "The beginning may have been continued in several ways: each of them is used up."),
        Misconception("every token of a matching n-gram is forbidden", wrong.whole_gram,
                      "Only its last token would complete it a second time."),
        Misconception("the beginning is forbidden instead of what followed it", wrong.prefix_banned,
                      "Forbid the token that would complete the n-gram."),
        Misconception("only the last token is looked up, whatever n is", wrong.after_last_token,
                      "That is the rule for n = 2. For larger n all of the last n - 1 tokens have to match."),
        Misconception("only the first of the n - 1 tokens is compared", wrong.first_token_matches,
                      "All n - 1 tokens have to match, in order."),
        Misconception("every token that occurred is forbidden, whatever n is", wrong.every_token_banned,
                      "That is the rule for n = 1. A token alone may come again, a whole n-gram may not."),
        Misconception("a text shorter than n forbids its tokens", wrong.short_text_banned,
                      "No n-gram stands there yet, so none can come twice."),
        Misconception("forbidden tokens get the logit 0", wrong.banned_with_zero,
                      "exp(0) = 1: a logit of 0 is a live token. Only exp(-inf) is 0."),
        Misconception("forbidden tokens get a large negative number", wrong.banned_with_large,
                      "-1e9 may be the best of a row of -inf. Use -inf, as the docstring says."),
        Misconception("what one text of the batch used up is forbidden in all", wrong.bans_shared,
                      "Each row of ids belongs to its own row of logits."),
        Misconception("the result is left in float32", wrong.ban_in_float32,
                      "Give the result the dtype of the logits."),
    ],
    alternatives=[wrong.no_repeat, wrong.ban_by_unfold, wrong.ban_by_table],
    forbid=["transformers"],
    hints=[
        "Which n-gram would the next token complete? All of it but the last token stands at the end of the text.",
        "Take the last n - 1 tokens. Wherever they stood before, the token that followed is forbidden. Mind n = 1 and "
        "texts of fewer than n tokens.",
        "ids.unfold(-1, n, 1) is every n-gram, [..., windows, n]. Those whose [..., :-1] equals the last n - 1 tokens "
        "forbid their [..., -1]. A Python loop over the rows is fine, too.",
    ],
    dtypes=(torch.float64, torch.bfloat16),
)

contrastive_search_step = Exercise(
    name="contrastive_search_step",
    points=3,
    cases=checks.search_cases,
    oracle=checks.paper,
    laws=[
        Law("The answer is one of the candidates", checks.is_a_candidate),
        Law("alpha = 0 takes the likeliest candidate", checks.zero_is_likeliest),
        Law("alpha = 1 doesn't look at the logits", checks.one_ignores_logits),
        Law("A copy of what stands there is avoided", checks.copy_is_avoided),
        Law("How long the state vectors are doesn't matter", checks.length_doesnt_matter),
        Law("The order of the candidates doesn't matter", checks.candidates_in_any_order),
        Law("The order of the context doesn't matter", checks.context_in_any_order),
    ],
    misconceptions=[
        Misconception("the confidence isn't weighed with 1 - alpha", wrong.confidence_not_weighed,
                      "Both terms are weighed: (1 - alpha) of the one, alpha of the other."),
        Misconception("alpha and 1 - alpha are swapped", wrong.alpha_swapped,
                      "alpha is the weight of the penalty: alpha = 0 is greedy."),
        Misconception("likeness is rewarded", wrong.likeness_rewarded, "It is a penalty: subtract it."),
        Misconception("the worst score is taken", wrong.worst_taken, "The best score: argmax."),
        Misconception("the penalty is ignored", wrong.likeness_ignored,
                      "The likeness to the context counts with weight alpha."),
        Misconception("logits or log-probabilities stand where probabilities belong", wrong.log_probabilities_weighed,
                      "The paper weighs the probability itself: like a cosine, it is never larger than 1."),
        Misconception("the softmax runs over the candidates alone", wrong.softmax_of_candidates,
                      "The probability is the model's own, over the whole vocabulary."),
        Misconception("the mean over the context is taken, not the maximum", wrong.mean_likeness,
                      "One copy in a long context must be enough: take the maximum."),
        Misconception("the minimum over the context is taken", wrong.least_likeness,
                      "What counts is the token of the context that is *most* alike."),
        Misconception("only the latest token of the context is compared", wrong.latest_likeness,
                      "Compare with every token of the context."),
        Misconception("the latest token of the context is left out", wrong.latest_left_out,
                      "Compare with every token of the context."),
        Misconception("dot products stand where cosines belong", wrong.dot_products,
                      "Divide by the lengths of both vectors."),
        Misconception("only the candidates' states are brought to length 1", wrong.context_not_scaled,
                      "A cosine divides by the lengths of both vectors."),
        Misconception("only the context's states are brought to length 1", wrong.states_not_scaled,
                      "A cosine divides by the lengths of both vectors."),
        Misconception("the states are scaled over the tokens, not over the width", wrong.scaled_across,
                      "The length of a vector is taken over its own numbers: dim=-1."),
        Misconception("the size of the cosine counts, without its sign", wrong.size_of_likeness,
                      "The opposite direction is the least alike of all: no absolute value."),
        Misconception("distances stand where cosines belong", wrong.distances,
                      "The penalty is a cosine: direction counts, length doesn't."),
        Misconception("the candidate's place is returned instead of its id", wrong.place_returned,
                      "candidates.gather(-1, …) turns a place into a token."),
        Misconception("the score is returned instead of the token", wrong.score_returned,
                      "argmax says where the best score is, and `candidates` which token that is."),
        Misconception("a dimension of size 1 is left over", wrong.dimension_left,
                      "One id a text: the shape of the logits without the vocabulary."),
    ],
    alternatives=[wrong.search, wrong.search_by_cosine_similarity, wrong.search_by_einsum],
    hints=[
        "Two numbers a candidate: how sure the model is of it, and how alike its state is to the most similar one of "
        "the context. Weigh them.",
        "probs = logits.softmax(-1), gathered at the candidates. Bring states and context to length 1 along the last "
        "dimension: then states @ context.mT are cosines, [..., k, length], and their maximum over the context counts.",
        "score = (1 - alpha) * probs - alpha * cosines.amax(-1); best = score.argmax(-1, keepdim=True); "
        "return candidates.gather(-1, best).squeeze(-1).",
    ],
    dtypes=(torch.float64,),
)
