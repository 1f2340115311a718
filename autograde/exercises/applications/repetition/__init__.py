"""Exercises of 02_applications/03_repetition: how to measure repetition, two penalties, and (in repetition_search)"""

ORDER = [
    "repetition_rate",
    "repetition_penalty",
    "frequency_presence_penalty",
    "no_repeat_ngram",
    "contrastive_search_step",
]
