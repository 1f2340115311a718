"""What nbgrader's Validate button in a learner's JupyterLab does: as in a classroom, but with more patience."""

from autograde.nbgrader_config import configure

c = get_config()  # noqa: F821
configure(c)
c.Execute.timeout = 600
