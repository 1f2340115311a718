"""Exercises of 01_transformer/03_position_encodings: sinusoids, learned positions, T5's buckets, ALiBi."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception
from autograde.exercises.transformer import positions_checks as checks
from autograde.exercises.transformer import positions_mistakes as wrong

sinusoidal_encoding = Exercise(
    name="sinusoidal_encoding",
    points=3,
    cases=checks.sinusoidal_cases,
    oracle=checks.marian_sinusoids,
    forbid=["transformers"],
    atol=1e-4,
    laws=[
        Law("Position 0 is (0, 1, 0, 1, …)", checks.starts_at_zero),
        Law("Every row has the length sqrt(d/2)", checks.lies_on_circles),
        Law("The dot product of two rows depends on their distance alone", checks.distance_alone),
        Law("Pair 0 turns by one radian a position, each further pair more slowly", checks.slowest_last),
    ],
    misconceptions=[
        Misconception("all sines come first, then all cosines", wrong.halves,
                      "That is tensor2tensor's layout. The paper, and this exercise, interleave: sin, cos, sin, cos."),
        Misconception("the cosine stands before the sine", wrong.cosine_first,
                      "Even columns hold the sine, odd ones the cosine."),
        Misconception("positions count from 1", wrong.from_one, "The first row belongs to position 0."),
        Misconception("sine and cosine of a pair have different speeds", wrong.own_speed_each,
                      "Columns 2i and 2i + 1 share the exponent 2i/d."),
        Misconception("the exponent is twice the number of the column", wrong.doubled_columns,
                      "In the formula i counts pairs: columns 2i and 2i + 1 share the exponent 2i/d."),
        Misconception("every column is a sine", wrong.sines_only, "Odd columns hold the cosine of the same angle."),
        Misconception("the exponent is i/d instead of 2i/d", wrong.half_exponent,
                      "i counts the d/2 pairs, so the exponent 2i/d runs from 0 to nearly 1."),
        Misconception("the exponent is 4i/d: a column number was doubled again", wrong.double_exponent,
                      "torch.arange(0, d, 2) already is 2i."),
        Misconception("the slowest pair gets exponent 1: i runs up to d/2 - 1 and is divided by that", wrong.to_the_end,
                      "Divide by d/2, not by d/2 - 1: exponent 2i/d."),
        Misconception("the speeds rise from pair to pair", wrong.rising, "Divide by 10,000 ** (2i/d)."),
        Misconception("the base is 1,000", wrong.base_thousand, "The paper's base is 10,000."),
        Misconception("all pairs turn at the same speed", wrong.one_speed, "Pair i has the speed 10,000 ** (-2i/d)."),
        Misconception("angles are multiplied by 2π", wrong.all_turned,
                      "The wavelength is 2π · 10,000 ** (2i/d), so the angle itself has no 2π."),
        Misconception("angles are taken for degrees", wrong.in_degrees, "torch.sin wants radians."),
    ],
    alternatives=[wrong.sinusoids, wrong.sinusoids_by_loop, wrong.sinusoids_by_log],
    hints=[
        "One column of positions, one row of speeds: their product holds all angles.",
        "angle = torch.arange(n)[:, None] / 10_000 ** (torch.arange(0, d, 2) / d) is [n, d/2].",
        "torch.stack([angle.sin(), angle.cos()], -1).flatten(-2) interleaves the two.",
    ],
)


add_learned_positions = Exercise(
    name="add_learned_positions",
    points=2,
    cases=checks.learned_cases,
    oracle=checks.torch_learned,
    probe=checks.learned_probe,
    laws=[
        Law("Where x is zero the rows of the table come out", checks.zeros_show_the_table),
        Law("A token by itself, with the others in the cache, gets the same", checks.token_by_token),
        Law("Past the table there is no position: ValueError", checks.the_table_ends),
    ],
    misconceptions=[
        Misconception("`past` is ignored, and every text starts at row 0", wrong.past_ignored,
                      "The first of the new tokens stands at position `past`."),
        Misconception("the last rows of the table are taken", wrong.last_rows, "The rows past, …, past + n - 1."),
        Misconception("all tokens get the same row", wrong.one_row_for_all, "Token i gets row past + i."),
        Misconception("the rows are added in reverse", wrong.reversed_rows, "Token i gets row past + i."),
        Misconception("the positions run the other way when `past` grows", wrong.subtracted_past,
                      "With `past` tokens before it a token moves up in the table, not down."),
        Misconception("the rows are multiplied instead of added", wrong.multiplied, "x plus the row."),
        Misconception("the rows are set beside x", wrong.concatenated, "Add them: the shape of x stays."),
        Misconception("x is multiplied by sqrt(d) first", wrong.scaled_first,
                      "The first Transformer did that to its embeddings, before this step. Here: x plus the row."),
        Misconception("the mean is taken instead of the sum", wrong.averaged, "x plus the row."),
        Misconception("past the table it starts again from row 0", wrong.wraps,
                      "Two places with one code can't be told apart. Raise a ValueError."),
        Misconception("past the table the last row is repeated", wrong.sticks_to_the_last,
                      "The model never learned that. Raise a ValueError."),
        Misconception("past the table nothing is added", wrong.nothing_past_the_end,
                      "A token without a position looks like no token of the training. Raise a ValueError."),
        Misconception("only the new tokens are compared with the table's length", wrong.length_alone_checked,
                      "The tokens in the cache have used rows, too: past + n must not exceed the table."),
        Misconception("the last row of the table can't be used", wrong.one_too_strict,
                      "A table of 8 rows has the positions 0 to 7: past + n may be 8."),
    ],
    alternatives=[wrong.learned, wrong.learned_by_index, wrong.learned_by_product],
    dtypes=[torch.float64],
    hints=[
        "Which rows of the table belong to n tokens that come after `past` others?",
        "table[past : past + n]. A slice past the end doesn't complain, it only gets shorter: look first.",
        "if past + x.shape[-2] > len(table): raise ValueError(…); return x + table[past : past + x.shape[-2]]",
    ],
)


relative_position_bucket = Exercise(
    name="relative_position_bucket",
    points=4,
    cases=checks.bucket_cases,
    oracle=checks.t5_bucket,
    forbid=["transformers"],
    laws=[
        Law("Buckets run from 0 to num_buckets - 1", checks.in_range),
        Law("The nearest distances have a bucket each", checks.near_are_told_apart),
        Law("Further back is never a lower bucket", checks.further_is_not_lower),
        Law("From max_distance on all share the last bucket", checks.far_shares_the_last),
        Law("The future has buckets of its own, or, for a decoder, bucket 0", checks.future_apart),
    ],
    misconceptions=[
        Misconception("past and future are swapped", wrong.sign_swapped,
                      "relative_position is the key's position minus the query's: negative is the past."),
        Misconception("past and future share their buckets", wrong.directions_share,
                      "With bidirectional=True the upper half of the buckets belongs to the future."),
        Misconception("the buckets aren't halved for the two directions", wrong.not_halved,
                      "With bidirectional=True each direction has num_buckets // 2."),
        Misconception("only a quarter of a direction's buckets are exact", wrong.exact_quarter,
                      "Half of a direction's buckets hold one distance each."),
        Misconception("the logarithm is rounded to the nearest bucket", wrong.rounded, "Round down: .long()."),
        Misconception("the logarithm is rounded up", wrong.rounded_up, "Round down: .long()."),
        Misconception("far distances run out of the buckets", wrong.never_clamped,
                      "Beyond max_distance everything shares the last bucket: clamp."),
        Misconception("the last bucket is one too high", wrong.clamped_one_off,
                      "c buckets are numbered 0 to c - 1."),
        Misconception("far distances are spaced evenly instead of by the logarithm", wrong.linear,
                      "Buckets get wider with distance: log(r / e) / log(max_distance / e)."),
        Misconception("every distance has its own bucket, until they run out", wrong.distance_itself,
                      "Only the nearest ones do. The other half of the buckets reaches up to max_distance."),
        Misconception("`bidirectional` is ignored", wrong.flag_ignored,
                      "A decoder has no future: all buckets belong to the past, and the future gets bucket 0."),
        Misconception("`bidirectional` is inverted", wrong.flag_inverted,
                      "bidirectional=True is the encoder, which sees both directions."),
        Misconception("`max_distance` is always 128", wrong.distance_ignored, "It is a parameter."),
        Misconception("`num_buckets` is always 32", wrong.count_ignored, "It is a parameter."),
    ],
    alternatives=[wrong.bucket, wrong.bucket_by_loop, wrong.bucket_by_edges],
    hints=[
        "First the direction (which half of the buckets?), then the distance, a number of at least 0.",
        "With c buckets a direction and e = c // 2: distance r < e is bucket r; else e + floor(log(r / e) / "
        "log(max_distance / e) * (c - e)), at most c - 1.",
        "r = -relative_position for a decoder, clamped at 0, or its absolute value; torch.where(r < e, r, far). Clamp "
        "r at 1 inside the logarithm.",
    ],
)


alibi_bias = Exercise(
    name="alibi_bias",
    points=3,
    cases=checks.alibi_cases,
    oracle=checks.bloom_alibi,
    forbid=["transformers"],
    atol=1e-4,
    laws=[
        Law("What comes later gets -inf, and nothing else does", checks.later_is_hidden),
        Law("Looking at oneself costs nothing", checks.itself_is_free),
        Law("Each step further back costs a head the same, and more than 0", checks.straight_lines),
        Law("No two heads have the same slope", checks.heads_differ),
    ],
    misconceptions=[
        Misconception("far keys are preferred to near ones", wrong.far_is_better,
                      "The bias is a penalty: negative, and growing with the distance."),
        Misconception("the future is penalised like the past instead of hidden", wrong.not_causal,
                      "Here the causal mask is part of the bias: -inf for later keys."),
        Misconception("the future gets 0, the best bias of all", wrong.future_free, "-inf for later keys."),
        Misconception("the past is hidden instead of the future", wrong.past_hidden,
                      "Rows are queries, columns keys: what lies above the diagonal is later."),
        Misconception("a token can't see itself", wrong.itself_hidden, "At distance 0 the bias is 0."),
        Misconception("the keys are counted from the start of the text", wrong.counted_from_the_start,
                      "After a softmax it comes to the same (each row is shifted), but asked is 0 on the diagonal."),
        Misconception("the penalty grows with the logarithm of the distance", wrong.logarithmic, "A straight line."),
        Misconception("the penalty grows with the square of the distance", wrong.squared, "A straight line."),
        Misconception("head counts that aren't powers of two use 2 ** (-8h/n_heads) as well", wrong.naive_slopes,
                      "There the paper's code mixes two geometric sequences: read the docstring once more."),
        Misconception("the slopes are 1/2, 1/4, 1/8, …, whatever the number of heads", wrong.halving_slopes,
                      "That is right for eight heads. In general the ratio is 2 ** (-8/n_heads)."),
        Misconception("the first head has slope 1", wrong.slopes_from_one,
                      "Heads count from 1 here: the first slope is the ratio itself."),
        Misconception("the slopes come in the reverse order", wrong.reversed_slopes,
                      "The first head has the steepest slope."),
        Misconception("all heads have the same slope", wrong.same_slope, "Each head has its own."),
        Misconception("the slopes are sorted", wrong.sorted_slopes,
                      "Where n_heads isn't a power of two the additional slopes are appended, not sorted in."),
        Misconception("the additional slopes are the 2nd, 4th, 6th, … of the longer sequence", wrong.extra_slopes_twice,
                      "Those are in the shorter sequence already. Take the 1st, 3rd, 5th, …"),
    ],
    alternatives=[wrong.alibi, wrong.alibi_by_loop, wrong.alibi_by_steps],
    hints=[
        "Three things: a slope for each head, a matrix of distances, and -inf above the diagonal.",
        "offset = torch.arange(n)[None, :] - torch.arange(n)[:, None] is j - i; slopes[:, None, None] * offset is the "
        "bias, since j - i is negative for the past.",
        "For a power of two m: slopes 2 ** (-8h/m), h = 1, …, m. Else m is the largest power of two below n_heads, and "
        "then follow the slopes for 2m heads number 1, 3, 5, … until there are n_heads.",
    ],
)
