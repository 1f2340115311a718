"""Exercises of 01_transformer/09_pretrain_gpt: a tokenizer, batches, the loss, bits per byte, a whole GPT."""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception
from autograde.exercises.transformer import pretraining_bpe_mistakes as spoilt
from autograde.exercises.transformer import pretraining_model as model
from autograde.exercises.transformer import pretraining_text_checks as checks
from autograde.exercises.transformer import pretraining_text_mistakes as wrong

train_bpe = Exercise(
    name="train_bpe",
    points=4,
    cases=checks.bpe_cases,
    oracle=checks.hf_merges,
    forbid=["tokenizers", "transformers"],
    laws=[
        Law("A merge joins tokens that are there before it", checks.made_of_earlier_tokens),
        Law("No token reaches from one word into the next", checks.stays_inside_words),
        Law("Asking for fewer merges gives the first of them", checks.begins_alike),
    ],
    misconceptions=[
        Misconception("a tie goes to the pair that was seen first", spoilt.bpe_first_seen,
                      "max(counts, key=counts.get) does that. Here the smaller pair of ids wins."),
        Misconception("a tie goes to the larger pair of ids", spoilt.bpe_largest_pair,
                      "Among the most frequent, the smallest: min over (-count, pair)."),
        Misconception("the rarest pair is joined", spoilt.bpe_rarest, "The most frequent one."),
        Misconception("pairs are scored by count(ab) / (count(a) count(b))", spoilt.bpe_by_likelihood,
                      "That is WordPiece, the tokenizer of BERT. BPE counts, and nothing else."),
        Misconception("a word counts once, however often it stands in the text", spoilt.bpe_distinct_words,
                      "Weigh a word's pairs by its number of occurrences."),
        Misconception("pairs that overlap are counted once", spoilt.bpe_apart,
                      "zzz holds (z, z) twice: zip(word, word[1:])."),
        Misconception("the text isn't cut into words", spoilt.bpe_across_words,
                      "re.findall(pattern, text) gives the words; pairs across their ends don't count."),
        Misconception("letters are counted instead of bytes", spoilt.bpe_of_letters,
                      "é is two bytes and 中 three: word.encode() gives them."),
        Misconception("the text is changed to small letters", spoilt.bpe_lower_case, "Leave the text as it is."),
        Misconception("white space is thrown away", spoilt.bpe_without_spaces,
                      "The pattern's words include their space; split() drops it, and the text can't be restored."),
        Misconception("every word gets an end mark", spoilt.bpe_end_of_word,
                      "Sennrich et al. do so; byte-level BPE has the space at the word's beginning instead."),
        Misconception("only the first occurrence in a word is joined", spoilt.bpe_joined_once,
                      "Go on to the end of the word."),
        Misconception("pairs are joined from the right", spoilt.bpe_from_the_right, "zzz becomes (zz)(z): from the "
                      "left."),
        Misconception("the words are never rewritten", spoilt.bpe_never_joined,
                      "After a merge, replace the pair by its new id in every word, and count again."),
        Misconception("all merges come from one count", spoilt.bpe_counted_once,
                      "Count again after every merge: new tokens make new pairs."),
        Misconception("new ids begin with 257", spoilt.bpe_numbered_from_257, "Bytes are 0 to 255, so 256 is next."),
        Misconception("pairs that occur only once are not joined", spoilt.bpe_twice_at_least,
                      "A library's default (min_frequency=2). Here it goes on as long as there is a pair."),
        Misconception("n_merges is taken for the size of the vocabulary", spoilt.bpe_vocabulary_size,
                      "The vocabulary is 256 + n_merges."),
        Misconception("the newest merge comes first", spoilt.bpe_newest_first,
                      "In the order in which they were made: that is their rank."),
        Misconception("the pairs are byte strings", spoilt.bpe_as_bytes, "Pairs of ids: ints."),
    ],
    alternatives=[spoilt.bpe, spoilt.bpe_updated, spoilt.bpe_by_replacing],
    hints=[
        "Count each distinct word once with collections.Counter, as a tuple of ids. What changes after a merge?",
        "counts[pair] += times, for pair in zip(word, word[1:]). The next merge is min(counts, key=lambda pair: "
        "(-counts[pair], pair)).",
        "Rewrite each word from the left: where word[i : i + 2] == pair, append 256 + len(merges) and go two on, else "
        "append word[i] and go one on.",
    ],
)


get_batch = Exercise(
    name="get_batch",
    points=2,
    cases=checks.batch_cases,
    oracle=checks.cut_out,
    probe=checks.batches,
    laws=[
        Law("Every target is the token after its input", checks.target_is_the_next),
        Law("Each row is a piece of the text", checks.rows_are_pieces),
        Law("All starts occur, the last legal one as well", checks.starts_everywhere),
        Law("The given generator decides, and moves on", checks.follows_the_generator),
    ],
    misconceptions=[
        Misconception("any token may be a start", wrong.batch_any_start,
                      "A start too close to the end leaves no room for n tokens and one target more."),
        Misconception("the range of the starts is one too long", wrong.batch_one_too_far,
                      "The last target is data[start + n]: the last legal start is len(data) - n - 1."),
        Misconception("the range of the starts is one too short", wrong.batch_last_missing,
                      "torch.randint leaves out its upper end itself."),
        Misconception("the targets are the inputs", wrong.batch_unshifted,
                      "Then copying is all that is to be learnt. Targets begin one token later."),
        Misconception("the targets are shifted by two", wrong.batch_shifted_by_two, "By one: the next token."),
        Misconception("the targets are the tokens before", wrong.batch_backwards, "The token *after* each input."),
        Misconception("the targets are the n tokens after the inputs", wrong.batch_next_piece,
                      "Each input has its own target: the very next token."),
        Misconception("there is one target a row", wrong.batch_last_only,
                      "Every one of the n tokens has a target; that is what makes a GPT's training efficient."),
        Misconception("the starts are multiples of n", wrong.batch_whole_pieces,
                      "Then the same pieces come back in every epoch. Any place may be a start."),
        Misconception("all rows begin at one start", wrong.batch_one_start, "One start a row: randint(…, (rows,))."),
        Misconception("the rows stand one token apart", wrong.batch_in_a_row,
                      "Independent starts; neighbours would say the same thing over and over."),
        Misconception("the end of the text goes on at its beginning", wrong.batch_circular,
                      "Nobody wrote that transition. Draw the starts so that it never happens."),
        Misconception("the tokens of a row come from anywhere", wrong.batch_of_single_tokens,
                      "A row is one piece of the text: n neighbours."),
        Misconception("the batch is flat", wrong.batch_flat, "Two dimensions, [rows, n]."),
        Misconception("the batch is transposed", wrong.batch_transposed, "[rows, n]: a row is a piece of the text."),
        Misconception("the tokens are floats", wrong.batch_as_floats, "Ids stay int64: they index an embedding."),
        Misconception("torch's own generator is used", wrong.batch_from_global,
                      "Hand the generator on: torch.randint(…, generator=generator)."),
        Misconception("the generator is seeded again at each call", wrong.batch_reseeded,
                      "Then all batches are one and the same. Use it as it is."),
        Misconception("each call starts from a fresh generator of the same seed", wrong.batch_begins_anew,
                      "Then all batches are one and the same. Use the one that you were given."),
    ],
    alternatives=[wrong.batch, wrong.batch_of_slices, wrong.batch_unfolded],
    hints=[
        "A row needs n + 1 tokens: n inputs, and one more for the last target. Where is the last place for that?",
        "starts = torch.randint(len(data) - n, (rows,), generator=generator): the upper end isn't drawn.",
        "places = starts[:, None] + torch.arange(n); return data[places], data[places + 1]",
    ],
)


cross_entropy = model.cross_entropy


bits_per_byte = Exercise(
    name="bits_per_byte",
    points=2,
    cases=checks.bits_cases,
    oracle=checks.counted_bits,
    laws=[
        Law("A text and its copy have the bits per byte of the text", checks.twice_the_text),
        Law("With tokens of three times the bytes, a third is needed", checks.longer_tokens_cost_less),
        Law("More padding changes nothing", checks.padding_is_free),
    ],
    misconceptions=[
        Misconception("nats are not turned into bits", wrong.bits_as_nats, "One bit is log(2) nats."),
        Misconception("nats are multiplied by log(2)", wrong.bits_times_ln2,
                      "A bit is less than a nat, so there are more of them: divide."),
        Misconception("the logarithm to base 10 is used", wrong.bits_as_digits, "Bits: base 2."),
        Misconception("bits per token are returned", wrong.bits_per_token,
                      "A longer vocabulary makes longer tokens. Divide by the text's bytes."),
        Misconception("the fraction is upside down", wrong.bytes_per_bit, "Bits above, bytes below."),
        Misconception("each token's own ratio is averaged", wrong.bits_token_by_token,
                      "Sum the bits, sum the bytes, and divide once."),
        Misconception("each row's ratio is averaged", wrong.bits_row_by_row,
                      "Sum the bits, sum the bytes, and divide once."),
        Misconception("the vocabulary's mean length is used", wrong.bits_by_mean_length,
                      "Short tokens are used most: add up the bytes of the tokens in the text."),
        Misconception("padding's losses are counted", wrong.bits_with_padding, "Leave out targets of -100."),
        Misconception("padding is taken for token 0", wrong.bits_padding_is_token_zero, "Leave out targets of -100."),
        Misconception("padding is given the bytes of token 0", wrong.bits_padding_has_bytes,
                      "Leave out targets of -100, above and below."),
        Misconception("tokens of no bytes are left out", wrong.bits_without_marks,
                      "Their bits are part of what the text costs, though they add no bytes."),
        Misconception("2 to the power of the result is returned", wrong.perplexity_per_byte,
                      "That would be a perplexity per byte. Wanted are the bits."),
    ],
    alternatives=[wrong.bits_by_mask, wrong.bits_from_means],
    dtypes=[torch.float64],
    hints=[
        "Two sums over the tokens that count: of their bits, and of their bytes.",
        "kept = targets != -100. n_bytes[targets[kept]] are the bytes of the tokens; losses are nats, and a bit is "
        "log(2) nats.",
        "return losses[kept].sum() / math.log(2) / n_bytes[targets[kept]].sum()",
    ],
)


gpt_forward = model.gpt_forward
