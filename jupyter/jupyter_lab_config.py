"""Where a learner's JupyterLab finds the course's own extension: three buttons for the exercises of a chapter."""

from pathlib import Path

c = get_config()  # noqa: F821
c.LabApp.extra_labextensions_path = [str(Path(__file__).parent / "labextensions")]
