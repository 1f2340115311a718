"""Exercises of 02_applications/03_repetition: how to measure repetition, two penalties, and (in repetition_search)
n-grams that may not come twice and contrastive search."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception, keeps_dtype
from autograde.exercises.applications import repetition_checks as checks
from autograde.exercises.applications import repetition_mistakes as wrong
from autograde.exercises.applications.repetition_search import contrastive_search_step, no_repeat_ngram

__all__ = [
    "contrastive_search_step",
    "frequency_presence_penalty",
    "no_repeat_ngram",
    "repetition_penalty",
    "repetition_rate",
]

_absent_untouched = Law("Tokens that didn't occur keep their logits", checks.absent_untouched)
_any_order = Law("The order of the text doesn't matter", checks.order_doesnt_matter)
_own_history = Law("Each text of a batch has its own history", checks.rows_alone)
_own_dtype = Law("The result has the dtype of the logits", keeps_dtype)

repetition_rate = Exercise(
    name="repetition_rate",
    points=2,
    cases=checks.rate_cases,
    oracle=checks.seq_rep,
    laws=[
        Law("A text in which no token comes twice has rate 0", checks.nothing_twice_is_zero),
        Law("Of m n-grams that are all alike, m - 1 are repetitions", checks.one_token_all_along),
        Law("Other names for the tokens change nothing", checks.names_dont_matter),
        Law("A longer n never gives a higher rate", checks.longer_is_rarer),
        Law("Each text of a batch is counted by itself", checks.texts_alone),
    ],
    misconceptions=[
        Misconception("the share of distinct n-grams is returned", wrong.distinct_share,
                      "That is distinct-n. The rate of repetition is what is missing to 1."),
        Misconception("the first occurrence of a repeated n-gram counts as a repetition, too", wrong.first_time_counted,
                      "What is said twice is repeated once: only an n-gram that stood there *before* counts."),
        Misconception("it is counted how many kinds of n-grams recur, not how often", wrong.kinds_that_recur,
                      "An n-gram that stands there five times is four repetitions among all n-grams of the text."),
        Misconception("the repetitions are divided by the number of tokens", wrong.over_length,
                      "Divide by the number of n-grams: a text of `length` tokens has length - n + 1."),
        Misconception("the repetitions are divided by the number of distinct n-grams", wrong.over_distinct,
                      "Divide by the number of all n-grams: the rate can't exceed 1."),
        Misconception("the rate is given in percent", wrong.in_percent, "A share: between 0 and 1."),
        Misconception("repetitions are counted and not divided by anything", wrong.counted_not_shared,
                      "A share: divide by the number of n-grams."),
        Misconception("the last n-gram of the text is missed", wrong.last_gram_missed,
                      "A text of `length` tokens has length - n + 1 n-grams. range() stops before its end."),
        Misconception("the text is cut into n-grams that don't overlap", wrong.cut_in_pieces,
                      "n-grams start at every token, not at every n-th."),
        Misconception("the n-grams are n + 1 tokens long", wrong.one_too_long, "text[i : i + n] has n tokens."),
        Misconception("the n-grams are n - 1 tokens long", wrong.one_too_short, "text[i : i + n] has n tokens."),
        Misconception("single tokens are counted, whatever n is", wrong.single_tokens, "Is `n` used anywhere?"),
        Misconception("n-grams with the same tokens in another order count as the same", wrong.order_ignored,
                      "'the cat' and 'cat the' are different: compare tuples, not sets or sorted lists."),
        Misconception("n-grams with the same sum count as the same", wrong.added_up,
                      "Different n-grams can have the same sum: compare all their tokens."),
        Misconception("the ids of an n-gram are glued to one text without a separator", wrong.glued,
                      "'1' and '23' glued are '123', and so are '12' and '3'. A tuple of ids keeps them apart."),
        Misconception("only repetitions that follow at once are counted", wrong.only_next_to_it,
                      "It doesn't matter how far back an n-gram stood."),
        Misconception("a text shorter than n has rate 1", wrong.empty_is_all, "No n-gram, no repetition: 0."),
        Misconception("a text shorter than n is divided by zero", wrong.empty_divides,
                      "A text of fewer than n tokens has no n-gram. The docstring says what its rate is."),
        Misconception("the rates of a batch are averaged", wrong.rows_averaged,
                      "One rate for each text: the shape of `tokens` without its last dimension."),
        Misconception("all texts of a batch are counted together", wrong.rows_pooled,
                      "What another text says is no repetition: count each row by itself."),
    ],
    alternatives=[wrong.rate, wrong.rate_by_unfold, wrong.rate_by_unique],
    hints=[
        "Go through the n-grams from left to right. Which of them stood there before?",
        "As many n-grams as are distinct are new, the others are repetitions: 1 - distinct / all, with "
        "length - n + 1 in all.",
        "For one text as a list: `grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]` and "
        "`1 - len(set(grams)) / len(grams)`, or 0 without grams. Then one number for each row.",
    ],
)

repetition_penalty = Exercise(
    name="repetition_penalty",
    points=3,
    cases=checks.penalty_cases,
    oracle=checks.hf_penalty,
    laws=[
        _absent_untouched,
        Law("With a penalty above 1, no token that occurred becomes likelier", checks.never_likelier),
        Law("A text said twice is penalised like a text said once", checks.once_is_enough),
        Law("The reciprocal penalty undoes it", checks.reciprocal_undoes),
        _any_order,
        _own_history,
        _own_dtype,
    ],
    misconceptions=[
        Misconception("negative logits are divided, too", wrong.all_divided,
                      "-4 / 1.2 is -3.3: *more* likely. A negative logit has to be multiplied."),
        Misconception("positive logits are multiplied, too", wrong.all_multiplied,
                      "4 * 1.2 is 4.8: *more* likely. A positive logit has to be divided."),
        Misconception("positive logits are multiplied and negative ones divided", wrong.wrong_way_round,
                      "That makes what occurred likelier. Turn it round."),
        Misconception("the penalty is applied again for every time the token occurred", wrong.once_each_time,
                      "It counts whether a token occurred, not how often. (The frequency penalty counts.)"),
        Misconception("the penalty is subtracted", wrong.subtracted,
                      "This one divides or multiplies. (The presence penalty subtracts.)"),
        Misconception("the logarithm of the penalty is subtracted", wrong.log_subtracted,
                      "That divides the odds by the penalty. CTRL's penalty divides the logit itself."),
        Misconception("tokens that occurred are forbidden altogether", wrong.banned,
                      "They become less likely, not impossible."),
        Misconception("the tokens that did not occur are penalised", wrong.unseen_penalised,
                      "Penalise the tokens in `ids`."),
        Misconception("the whole vocabulary is penalised", wrong.whole_vocabulary,
                      "Only the tokens in `ids`: the others keep their logits."),
        Misconception("only the last token of the text is penalised", wrong.last_token_alone,
                      "Every token of the text, however far back."),
        Misconception("the last token of the text is forgotten", wrong.last_token_forgotten,
                      "Every token of the text, the last one too."),
        Misconception("the first token of the text is forgotten", wrong.first_token_forgotten,
                      "Every token of the text, the first one too."),
        Misconception("a penalty below 1 is treated as 1", wrong.reward_ignored,
                      "Below 1 it rewards repetition: the same formula, no limit."),
        Misconception("log-probabilities are penalised instead of logits", wrong.log_probabilities,
                      "Penalise the logits as they come. Log-probabilities are below 0: all would be multiplied."),
        Misconception("what one text of the batch said is penalised in all", wrong.history_shared,
                      "Each row of ids belongs to its own row of logits."),
        Misconception("the softmax is taken as well", wrong.as_probabilities,
                      "Hand logits on: other processors may follow. The softmax comes once, at the very end."),
        Misconception("the result is left in float32", wrong.penalty_in_float32,
                      "Give the result the dtype of the logits."),
    ],
    alternatives=[wrong.penalty, wrong.penalty_by_gather, wrong.penalty_by_loop],
    forbid=["transformers"],
    hints=[
        "What does a division by 1.2 do to a logit of 4, and what to one of -4? Which way should both go?",
        "Read the logits of the tokens that occurred (gather), divide the positive ones and multiply the negative "
        "ones, and write them back (scatter). A token that occurs twice is then written twice with the same value.",
        "`old = logits.gather(-1, ids)`, `new = torch.where(old < 0, old * penalty, old / penalty)`, "
        "`logits.scatter(-1, ids, new)`.",
    ],
    dtypes=(torch.float64,),
)

frequency_presence_penalty = Exercise(
    name="frequency_presence_penalty",
    points=2,
    cases=checks.taken_cases,
    oracle=checks.openai,
    laws=[
        _absent_untouched,
        Law("Presence takes the same from every token that occurred", checks.presence_takes_alike),
        Law("Frequency takes twice as much from a text said twice", checks.frequency_takes_by_count),
        Law("Adding 7 to all logits adds 7 to the result", checks.level_doesnt_matter),
        _any_order,
        _own_history,
        _own_dtype,
    ],
    misconceptions=[
        Misconception("presence is multiplied by the count, too", wrong.presence_by_count,
                      "Presence asks whether a token occurred, not how often: once, whatever the count."),
        Misconception("frequency is taken once, whatever the count", wrong.frequency_once,
                      "Frequency is taken for every time the token occurred. (`logits[ids] -= f` takes it only once.)"),
        Misconception("frequency and presence are swapped", wrong.knobs_swapped,
                      "Frequency goes with the count, presence with count > 0."),
        Misconception("the penalties are added", wrong.added, "A positive penalty makes repetition less likely."),
        Misconception("presence is taken from every token", wrong.presence_for_all,
                      "The same number off all logits changes no probability. Only tokens that occurred."),
        Misconception("presence is taken from the tokens that did not occur", wrong.presence_for_absent,
                      "Only tokens that occurred lose anything."),
        Misconception("presence is forgotten", wrong.presence_forgotten, "Is `presence` used anywhere?"),
        Misconception("frequency is forgotten", wrong.frequency_forgotten, "Is `frequency` used anywhere?"),
        Misconception("negative penalties are treated as 0", wrong.negatives_ignored,
                      "Negative ones reward repetition: the same formula, no limit."),
        Misconception("the count is divided by the length of the text", wrong.share_of_text,
                      "Frequency counts occurrences, not a share."),
        Misconception("the logarithm of the count is taken", wrong.log_of_count,
                      "Frequency grows with the count itself."),
        Misconception("the first occurrence goes unpunished", wrong.second_time_first,
                      "A token that stands there once has the count 1."),
        Misconception("what one text of the batch said is counted in all", wrong.counts_shared,
                      "Each row of ids belongs to its own row of logits."),
        Misconception("the last token of the text isn't counted", wrong.latest_not_counted,
                      "Every token of the text, the last one too."),
        Misconception("presence divides or multiplies instead of being subtracted", wrong.as_factor,
                      "Both penalties are subtracted. (Dividing is what CTRL's repetition penalty does.)"),
        Misconception("the penalties are taken from probabilities", wrong.taken_from_probabilities,
                      "From the logits: a probability less a penalty can be negative."),
        Misconception("the result is left in float32", wrong.taken_in_float32,
                      "Give the result the dtype of the logits."),
    ],
    alternatives=[wrong.taken, wrong.taken_by_one_hot, wrong.taken_by_loop],
    hints=[
        "You need the number of times each token of the vocabulary stands in its text.",
        "`torch.zeros_like(logits).scatter_add(-1, ids, ones)` counts. Plain indexing, `counts[ids] += 1`, would count "
        "a token that stands there twice only once.",
        "`counts = torch.zeros_like(logits).scatter_add(-1, ids, torch.ones(ids.shape, dtype=logits.dtype))`, then "
        "`logits - frequency * counts - presence * (counts > 0).to(logits.dtype)`.",
    ],
    dtypes=(torch.float64,),
)
