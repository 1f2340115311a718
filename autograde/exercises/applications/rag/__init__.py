"""Exercises of 02_applications/05_rag: pieces of text, finding them by words and by vectors, judging, and a prompt."""

ORDER = [
    "chunk_text",
    "bm25_scores",
    "cosine_top_k",
    "reciprocal_rank_fusion",
    "recall_at_k",
    "mrr",
    "grounded_prompt",
]
