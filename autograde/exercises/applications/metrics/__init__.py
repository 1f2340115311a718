"""Exercises of 02_applications/11_metrics: counting hits, ranking, regression, texts, language models, retrieval."""

ORDER = [
    "confusion_matrix",
    "precision_recall_f1",
    "roc_auc",
    "regression_metrics",
    "bleu",
    "rouge_l",
    "perplexity",
    "cosine_similarity",
    "top_k_accuracy",
]
