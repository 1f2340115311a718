"""Exercises of 01_transformer/06_efficient_attention that compute exact attention with less memory: fewer key heads,
and one block of keys at a time."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception, keeps_dtype
from autograde.exercises.transformer import efficient_exact_checks as checks
from autograde.exercises.transformer import efficient_exact_mistakes as wrong

LIBRARY = ["torch.nn.functional.scaled_dot_product_attention", "torch.nn.MultiheadAttention", "transformers"]

grouped_query_attention = Exercise(
    name="grouped_query_attention",
    points=4,
    cases=checks.grouped_cases,
    oracle=checks.torch_grouped,
    probe=checks.answer_or_refusal,
    forbid=LIBRARY,
    laws=[
        Law("The last key head speaks to the last group alone", checks.groups_hear_their_own),
        Law("With copied key heads it is ordinary attention", checks.copies_change_nothing),
        Law("What stands at a hidden key doesn't matter", checks.hidden_is_unread),
        Law("A query that may see nothing gets zeros", checks.seeing_nothing_gives_zeros),
        Law("Heads that can't be shared out are a ValueError", checks.uneven_is_refused),
        Law("The result has the dtype of the input", checks.result_keeps_dtype),
    ],
    misconceptions=[
        Misconception("key heads are dealt out in turn, like cards", wrong.dealt_in_turn,
                      "Query heads 0 to g - 1 share key head 0: each key head is repeated g times in a row."),
        Misconception("all query heads listen to the first key head", wrong.first_head_for_all,
                      "Query head h listens to key head h // g."),
        Misconception("all query heads listen to the last key head", wrong.last_head_for_all,
                      "Query head h listens to key head h // g."),
        Misconception("the key heads are averaged", wrong.mean_head_for_all,
                      "Averaging is how a trained model is *converted*. Here query head h listens to head h // g."),
        Misconception("the key heads are handed out from the back", wrong.handed_out_backwards,
                      "Query head h listens to key head h // g."),
        Misconception("keys are shared in groups, values in turn", wrong.values_dealt_in_turn,
                      "Keys and values go together: treat them alike."),
        Misconception("values are shared in groups, keys in turn", wrong.keys_dealt_in_turn,
                      "Keys and values go together: treat them alike."),
        Misconception("the queries of a group are averaged", wrong.queries_averaged,
                      "Each query head keeps its own question."),
        Misconception("the scores of a group are added up", wrong.scores_added,
                      "Each query head has weights of its own."),
        Misconception("the scores aren't divided by sqrt(d)", wrong.grouped_not_scaled,
                      "Scale as in ordinary attention."),
        Misconception("the width is taken from all heads together", wrong.grouped_scaled_by_model,
                      "The root of one head's width, q.shape[-1]."),
        Misconception("the softmax runs over the queries", wrong.grouped_over_queries, "Over the keys: dim=-1."),
        Misconception("the mask is ignored", wrong.grouped_mask_ignored, "Where the mask is False, a score is -inf."),
        Misconception("the mask is inverted", wrong.grouped_mask_inverted, "True means: may attend."),
        Misconception("the mask is applied after the softmax", wrong.grouped_mask_after,
                      "Hidden keys must not take part in the softmax."),
        Misconception("a query that may see nothing gets NaN", wrong.grouped_nan_rows,
                      "Softmax over nothing but -inf is 0/0. The docstring asks for zeros."),
        Misconception("a query that may see nothing gets the mean of all values", wrong.grouped_mask_finite,
                      "With the same finite number everywhere the softmax is uniform. The docstring asks for zeros."),
        Misconception("heads that don't divide are cut off silently", wrong.uneven_cut_off,
                      "heads % kv_heads must be 0: raise a ValueError."),
        Misconception("heads that don't divide wrap around silently", wrong.uneven_wrapped,
                      "heads % kv_heads must be 0: raise a ValueError."),
        Misconception("everything is computed in float32, also for float64", wrong.grouped_single_precision,
                      "Don't cast: the result has the dtype of the input."),
    ],
    alternatives=[wrong.grouped, wrong.grouped_by_view, wrong.grouped_by_loop],
    dtypes=[torch.float64],
    hints=[
        "With g query heads for each key head, which key head belongs to query head h? Draw it for 6 and 2.",
        "g = heads // kv_heads. k.repeat_interleave(g, dim=-3) brings key heads into the queries' order, and then it "
        "is ordinary attention. (Without copies: q.unflatten(-3, (kv_heads, g)).)",
        "if heads % kv_heads: raise ValueError(…). k, v = (t.repeat_interleave(heads // kv_heads, -3) for t in "
        "(k, v)). Then scores, mask, softmax, nan_to_num(0), @ v.",
    ],
)


online_softmax_attention = Exercise(
    name="online_softmax_attention",
    points=4,
    cases=checks.online_cases,
    oracle=checks.torch_online,
    probe=checks.streamed,
    forbid=LIBRARY,
    laws=[
        Law("Twelve blocks need no more memory than four", checks.memory_is_flat),
        Law("Other blocks, the same result", checks.cutting_changes_nothing),
        Law("The blocks' order doesn't matter", checks.order_changes_nothing),
        Law("All keys alike: the plain mean of the values", checks.alike_keys_share),
        Law("The result has the dtype of the input", keeps_dtype),
    ],
    misconceptions=[
        Misconception("the running maximum starts at 0", wrong.maximum_from_zero,
                      "Scores may all be far below 0, and exp(score - 0) vanishes. Start from -inf."),
        Misconception("no maximum is subtracted, and exp overflows", wrong.without_maximum,
                      "exp(100) is beyond float32. Subtract the largest score so far."),
        Misconception("the first block's maximum is kept", wrong.first_maximum_kept,
                      "A later block may hold a larger score: then exp overflows."),
        Misconception("each block subtracts its own maximum, and nothing is rescaled", wrong.never_rescaled,
                      "Sums that were taken against the old maximum have to be multiplied by exp(old - new)."),
        Misconception("only the normaliser is rescaled", wrong.sum_alone_rescaled,
                      "The weighted sum of the values was taken against the old maximum as well."),
        Misconception("only the weighted sum is rescaled, not the normaliser", wrong.values_alone_rescaled,
                      "The normaliser was taken against the old maximum as well."),
        Misconception("the rescaling is upside down", wrong.rescaled_upside_down,
                      "The old sums shrink: exp(old - new), which is at most 1."),
        Misconception("each block is taken against its own maximum, though the sums are rescaled",
                      wrong.own_maximum_for_weights, "exp(scores - new), with the maximum of all blocks so far."),
        Misconception("one maximum serves all queries", wrong.maximum_of_all,
                      "Where one query's scores are far below another's, exp vanishes. A maximum a query."),
        Misconception("the blocks' attentions are averaged", wrong.blocks_averaged,
                      "A block whose keys hardly match would count as much as the best one."),
        Misconception("the blocks' attentions are averaged by their sizes", wrong.blocks_averaged_by_size,
                      "What counts is how well a block's keys match: its sum of exponentials."),
        Misconception("the blocks' attentions are added up", wrong.blocks_added,
                      "The weights of a query sum to 1 over all blocks together."),
        Misconception("only the last block counts", wrong.last_block_alone, "Carry the sums from block to block."),
        Misconception("only the first block counts", wrong.first_block_alone, "Go through all blocks."),
        Misconception("the sum is never divided", wrong.never_divided, "Divide by the normaliser, once, at the end."),
        Misconception("the sum is divided after every block, and then carried on", wrong.divided_each_time,
                      "Divide once, at the end, or undo it before the next block."),
        Misconception("the scores aren't divided by sqrt(d)", wrong.online_not_scaled,
                      "Scale as in ordinary attention."),
        Misconception("the scores are divided by d instead of its root", wrong.online_scaled_by_width,
                      "The root of q.shape[-1]."),
        Misconception("all blocks, or all their scores, are kept until the end", wrong.blocks_joined,
                      "Right numbers, but memory that grows with the text. Three running values are enough."),
        Misconception("the blocks are read twice: first for the maximum", wrong.read_twice,
                      "A stream can be read only once. Correct the sums when the maximum grows."),
        Misconception("everything is computed in float32, also for float64", wrong.online_single_precision,
                      "Don't cast: the result has the dtype of the input."),
    ],
    alternatives=[wrong.online, wrong.online_by_logsumexp, wrong.online_by_pairs],
    atol=1e-4,
    dtypes=[torch.float64],
    hints=[
        "For each query keep three things: the largest score so far, the sum of exp(score - largest), and the sum of "
        "exp(score - largest) · value.",
        "When a block brings a larger score, both sums are too large by exp(new - old): multiply them by "
        "exp(old - new). Start with a largest score of -inf: exp(-inf) = 0 removes the empty sums.",
        "new = torch.maximum(top, scores.amax(-1, keepdim=True)); keep = torch.exp(top - new); p = torch.exp(scores - "
        "new); total = total * keep + p.sum(-1, keepdim=True); out = out * keep + p @ v; top = new. At the end "
        "out / total.",
    ],
)
