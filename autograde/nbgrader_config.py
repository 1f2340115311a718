"""nbgrader's settings for this course. A course folder's nbgrader_config.py calls `configure(c)`."""

from __future__ import annotations


def configure(c, timeout: int = 120) -> None:
    """Set up nbgrader's config object `c`: grade only what learners may write, show no hidden tests.

    `timeout` is in seconds a cell; a cell that takes longer is interrupted and scores 0.
    """
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
    from nbgrader import preprocessors as stock

    from autograde.classroom import steps

    c.Autograde.sanitize_preprocessors = [
        stock.ClearOutput,
        steps.TakeOnlySolutions,
        stock.OverwriteKernelspec,
        stock.OverwriteCells,
        stock.CheckCellMetadata,
    ]
    c.Autograde.autograde_preprocessors = [
        steps.ExecuteToTheEnd,
        stock.LimitOutput,
        steps.BelieveNumbersOnly,
        stock.SaveAutoGrades,
        stock.AssignLatePenalties,
        stock.CheckCellMetadata,
    ]
    c.GenerateFeedback.preprocessors = [stock.GetGrades, steps.ShowNoSecrets, CSSHTMLHeaderPreprocessor]
    c.ExecuteToTheEnd.timeout = timeout
    c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError"}
