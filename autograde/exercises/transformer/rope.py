"""Exercises of 01_transformer/04_rope: the angles, the rotation, the scores, and scaling to longer contexts."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception
from autograde.exercises.transformer import rope_checks as checks
from autograde.exercises.transformer import rope_mistakes as wrong

rope_angles = Exercise(
    name="rope_angles",
    points=3,
    cases=checks.angle_cases,
    oracle=checks.hf_angles,
    laws=[
        Law("At position 0 every angle is 0", checks.from_zero),
        Law("Pair 0 turns by one radian a position", checks.unit_pair),
        Law("Twice as far means twice the angle", checks.doubles),
        Law("Each pair is slower than the one before by the same factor, base ** (2/d)", checks.ladder),
    ],
    misconceptions=[
        Misconception("the exponent is -i/d rather than -2i/d", wrong.exponent_not_doubled,
                      "There are d/2 pairs, and the exponents run from 0 almost to -1: pair i gets -2i/d."),
        Misconception("the exponent is divided by the number of pairs, d/2, rather than by d",
                      wrong.exponent_doubled_twice,
                      "torch.arange(0, d, 2) already holds 2i. It is divided by d."),
        Misconception("the exponent has no minus sign, so that later pairs turn faster", wrong.exponent_positive,
                      "Pair 0 is the fastest one. Is your exponent negative?"),
        Misconception("the exponents run from 0 to -1 with both ends included (linspace)", wrong.exponent_to_one,
                      "The last exponent is -(d - 2)/d, not -1: step by 2/d and stop before 1."),
        Misconception("the base is always 10,000, whatever is passed", wrong.base_fixed,
                      "`base` is a parameter: LLaMA 3 calls this with 500,000."),
        Misconception("positions are turned into whole turns (multiplied by 2 pi)", wrong.whole_turns,
                      "Pair 0 turns by one radian a position, not by one revolution."),
        Misconception("positions are counted 0, 1, 2, … instead of being read from `positions`",
                      wrong.counted_by_index,
                      "`positions` need not be 0, 1, 2, …: a KV cache asks for position 57 alone."),
        Misconception("positions are counted from 1", wrong.counted_from_one, "Position 0 has angle 0."),
        Misconception("every angle is given twice, d of them rather than d/2", wrong.each_angle_twice,
                      "Return one angle a pair. The rotation spreads them over both halves later."),
    ],
    alternatives=[wrong.angles_by_loop, wrong.angles_by_einsum],
    dtypes=[torch.float64],
    hints=[
        "Two ingredients: a speed for each of the d/2 pairs, which doesn't depend on the position, and the positions.",
        "The speeds are base ** (-torch.arange(0, d, 2) / d), of shape [d/2]. Multiply each position with all of them.",
        "positions[..., None] has shape [..., 1]; times the speeds of shape [d/2] it broadcasts to [..., d/2]. "
        "Use .float(), since positions are often integers.",
    ],
)


apply_rope = Exercise(
    name="apply_rope",
    points=4,
    cases=checks.rotation_cases,
    oracle=checks.hf_rotation,
    laws=[
        Law("Keeps the length of every vector", checks.keeps_length),
        Law("Leaves position 0 alone", checks.still_at_zero),
        Law("q·k depends on the distance between the positions, and on nothing else of them", checks.relative),
        Law("Gives back the dtype of x", checks.keeps_dtype),
    ],
    misconceptions=[
        Misconception("neighbours (x0, x1), (x2, x3), … are paired, as in the RoFormer paper and GPT-J",
                      wrong.neighbours_paired,
                      "A valid rotary embedding, but not LLaMA's: here dimension i is paired with i + d/2."),
        Misconception("pairs (i, i + d/2) meet angles laid out for neighbours (repeat_interleave)",
                      wrong.halves_with_interleaved_angles,
                      "Both members of a pair need the same angle. With halves that is torch.cat([angle, angle], -1)."),
        Misconception("neighbours are paired, but the angles are laid out for halves (cat)",
                      wrong.neighbours_with_repeated_angles,
                      "The angles fit pairs (i, i + d/2). Rotate these rather than neighbours."),
        Misconception("the rotation goes backwards: the minus sign stands at the wrong half", wrong.backwards,
                      "The minus belongs where the second half enters the new first one: first * cos - second * sin."),
        Misconception("both sines have a plus sign", wrong.no_minus,
                      "That isn't a rotation: lengths change. One of the two sines needs a minus."),
        Misconception("cosine and sine are swapped", wrong.cos_and_sin_swapped,
                      "At position 0 nothing may move: which of the two functions is 1 at angle 0?"),
        Misconception("each dimension is only multiplied with its cosine", wrong.no_sine,
                      "A rotation mixes the two members of a pair: the sine brings in the partner."),
        Misconception("all pairs turn at the same speed", wrong.one_speed,
                      "Each pair has its own speed: use all d/2 angles that rope_angles gives."),
        Misconception("the base is always 10,000, whatever is passed", wrong.base_ignored,
                      "Pass `base` on to rope_angles."),
        Misconception("rows are counted 0, 1, 2, … and `positions` is not used", wrong.positions_ignored,
                      "Row r sits at positions[r], which need not be r."),
        Misconception("only the first half of the dimensions is rotated", wrong.only_first_half,
                      "Some models do (partial rotary factor). LLaMA rotates all d dimensions."),
        Misconception("the angles are computed in the dtype of x, which is too coarse in bfloat16",
                      wrong.angles_in_dtype_of_x,
                      "bfloat16 has 8 bits of precision: position 1,001 becomes 1,000. Compute angles in float32."),
        Misconception("a bfloat16 x is promoted by the float32 cosines", wrong.promoted,
                      "End with .to(x.dtype): half-precision attention kernels refuse float32 queries."),
    ],
    alternatives=[wrong.rotation_by_complex, wrong.rotation_by_matrix, wrong.rotation_in_dtype_of_x],
    forbid=["transformers"],
    atol=2e-3,
    dtypes=[torch.float64, torch.bfloat16],
    hints=[
        "Take one pair (a, b) = (x[i], x[i + d/2]) and one angle. How does a point (a, b) of the plane turn by it?",
        "a' = a cos - b sin and b' = b cos + a sin. With first, second = x.chunk(2, -1) you do all pairs at once.",
        "angle = rope_angles(positions, d, base) has shape [..., d/2], like the halves. Join first * cos - second * sin"
        " and second * cos + first * sin with torch.cat(…, -1), then .to(x.dtype).",
    ],
)


rope_attention_scores = Exercise(
    name="rope_attention_scores",
    points=3,
    cases=checks.score_cases,
    oracle=checks.hf_scores,
    laws=[
        Law("Moving all positions by 37 changes no score", checks.shift),
        Law("Another distance gives another score", checks.distance_counts),
        Law("Hides exactly the keys at later positions, with -inf", checks.mask_by_position),
        Law("At equal positions the score is q·k / sqrt(d)", checks.plain_at_same_place),
    ],
    misconceptions=[
        Misconception("the scores aren't divided by sqrt(d)", wrong.not_scaled,
                      "Attention divides q·k by the root of d."),
        Misconception("the scores are divided by d rather than by its root", wrong.scaled_by_d,
                      "Attention divides by the root of d."),
        Misconception("only the queries are rotated", wrong.keys_not_rotated,
                      "The distance appears only when both are turned, each by its own position."),
        Misconception("keys are rotated backwards, so that scores depend on the sum of the positions",
                      wrong.keys_backwards,
                      "Query and key turn the same way. The dot product itself makes the difference."),
        Misconception("the keys get the queries' positions", wrong.keys_at_query_positions,
                      "Rotate k with k_positions."),
        Misconception("queries and keys are both counted 0, 1, 2, … and the positions aren't used",
                      wrong.counted_anew,
                      "With a cache the only query sits at position 7, not 0: use the positions you are given."),
        Misconception("no key is hidden", wrong.no_mask, "With causal=True, keys at later positions get -inf."),
        Misconception("`causal=False` is ignored", wrong.always_masked, "Hide keys only where `causal` is true."),
        Misconception("the mask goes by row and column numbers instead of positions", wrong.mask_by_index,
                      "A new query at position 7 may see all seven cached keys. Compare k_positions with q_positions."),
        Misconception("the mask hides the past instead of the future", wrong.mask_inverted,
                      "Hide where the key's position is greater than the query's."),
        Misconception("the mask also hides the token itself", wrong.mask_hides_itself,
                      "A token may attend to its own position: hide only strictly later ones."),
        Misconception("hidden scores are set to 0 instead of -inf", wrong.mask_with_zero,
                      "After softmax a score of 0 still has weight; only -inf has none."),
    ],
    alternatives=[wrong.scores_right, wrong.scores_by_distance],
    forbid=["transformers"],
    atol=2e-3,
    dtypes=[torch.float64],
    hints=[
        "Rotate first, then do what attention always does: dot products, the scale, the mask.",
        "apply_rope(q, q_positions, base) @ apply_rope(k, k_positions, base).mT is [..., n_q, n_k]. Divide by sqrt(d).",
        "k_positions[..., None, :] > q_positions[..., :, None] is True where a key lies in the future: "
        "scores.masked_fill(that, -torch.inf) if causal.",
    ],
)


scale_rope = Exercise(
    name="scale_rope",
    points=4,
    cases=checks.scaling_cases,
    oracle=checks.hf_scaling,
    laws=[
        Law("Factor 1 changes nothing", checks.neutral_factor),
        Law("NTK and YaRN leave the fastest pair alone", checks.fastest_kept),
        Law("A pair that never went round in training is slowed by exactly the factor", checks.slowest_slowed),
        Law("No pair gets faster, and none is slowed by more than the factor", checks.within),
        Law("Only YaRN sharpens attention", checks.attention_factor),
    ],
    misconceptions=[
        Misconception("linear scaling multiplies the speeds instead of dividing them", wrong.linear_multiplied,
                      "Position 4,000 should look like 2,000 did: clocks go slower, not faster."),
        Misconception("the NTK base is multiplied by the plain factor", wrong.ntk_base_times_factor,
                      "The power d/(d-2) makes the slowest pair come out at exactly 1/factor."),
        Misconception("the NTK power is (d-2)/d instead of d/(d-2)", wrong.ntk_power_inverted,
                      "Solve for it: new_base ** (-(d-2)/d) should be base ** (-(d-2)/d) / factor."),
        Misconception("YaRN's ramp is reversed: the fast pairs are interpolated, the slow ones kept",
                      wrong.yarn_reversed,
                      "Fast pairs went round often in training: they know every angle. Slow ones need interpolation."),
        Misconception("YaRN interpolates every pair, without a ramp", wrong.yarn_all_interpolated,
                      "That is linear scaling. Mix both speeds, pair by pair."),
        Misconception("YaRN's attention factor is left at 1", wrong.yarn_without_attention,
                      "YaRN has a second half: 0.1 ln(factor) + 1, with which cosines and sines are multiplied."),
        Misconception("YaRN's attention factor is the temperature t itself", wrong.yarn_temperature,
                      "The paper gives sqrt(1/t) = 0.1 ln(factor) + 1. Return that root."),
        Misconception("YaRN's attention factor uses the logarithm to base 10", wrong.yarn_log10,
                      "math.log is the natural logarithm."),
        Misconception("the ramp's ends aren't rounded", wrong.yarn_unrounded,
                      "floor the low end, ceil the high end, as the released code does."),
        Misconception("the ramp runs over the number of turns, as in the paper's text, not over the pair's number",
                      wrong.yarn_by_turns,
                      "The released code, which trained models use, ramps linearly in i between low and high."),
        Misconception("the ramp's ends lack the 2 pi", wrong.yarn_without_two_pi,
                      "One turn is 2 pi radians: turns = trained_length * speed / (2 pi)."),
        Misconception("the ramp's ends are computed from the new length instead of the trained one",
                      wrong.yarn_new_length,
                      "What matters is how often a pair went round in training."),
        Misconception("the base is always 10,000, whatever is passed", wrong.scaling_base_ignored,
                      "`base` enters the speeds and the ramp."),
    ],
    alternatives=[wrong.scaling, wrong.scaling_by_loop],
    forbid=["transformers"],
    atol=1e-9,
    hints=[
        "Start with plain = base ** (-torch.arange(0, d, 2) / d). Linear: plain / factor. NTK: the same formula with a "
        "larger base.",
        "YaRN mixes plain / factor and plain with a ramp in [0, 1]: 0 up to pair `low`, 1 from pair `high` on. "
        "pair(turns) = d * ln(trained_length / (2 pi turns)) / (2 ln base) tells which pair makes that many turns.",
        "low = max(floor(pair(32)), 0), high = min(ceil(pair(1)), d - 1); ramp = (i - low) / (high - low), in [0, 1]; "
        "speeds = plain / factor * ramp + plain * (1 - ramp), attention factor 0.1 * math.log(factor) + 1.",
    ],
)
