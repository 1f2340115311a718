"""nbgrader's settings for this course. A course folder's nbgrader_config.py calls `configure(c)`."""

from __future__ import annotations

from autograde.regions import STUB


def configure(c, timeout: int = 120) -> None:
    """Set up nbgrader's config object `c`: grade only what learners may write, show no hidden tests.

    `timeout` is in seconds a cell; a cell that takes longer is interrupted, and the rest of the notebook is graded.
    """
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
    from nbgrader import preprocessors as stock

    from autograde.classroom import steps

    c.Autograde.exporter_class = steps.AnyNotebook
    c.Autograde.sanitize_preprocessors = [
        steps.TakeOnlySolutions,
        stock.OverwriteKernelspec,
        stock.OverwriteCells,
        stock.CheckCellMetadata,
    ]
    c.Autograde.autograde_preprocessors = [
        steps.ExecuteToTheEnd,
        steps.BelieveNumbersOnly,
        steps.ShowPlainText,
        stock.LimitOutput,
        stock.SaveAutoGrades,
        stock.AssignLatePenalties,
        stock.CheckCellMetadata,
    ]
    c.GenerateFeedback.preprocessors = [
        stock.GetGrades,
        steps.HideTests,
        steps.ShowPlainText,
        CSSHTMLHeaderPreprocessor,
    ]
    c.ExecuteToTheEnd.timeout = timeout
    c.ExecuteToTheEnd.store_widget_state = False
    told = f"this cell ran for more than {timeout} seconds and was stopped"
    c.ExecuteToTheEnd.error_on_timeout = {"ename": "Timeout", "evalue": told, "traceback": [f"Timeout: {told}"]}
    c.ClearSolutions.code_stub = {"python": STUB}
