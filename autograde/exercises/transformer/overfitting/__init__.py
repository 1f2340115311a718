"""Exercises of 01_transformer/08_overfitting: dropout, label smoothing, early stopping, decay under Adam."""

ORDER = ["dropout", "label_smoothing_loss", "adam_with_decay", "EarlyStopping"]
