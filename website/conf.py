"""Sphinx's configuration. Nothing that a page needs comes from another server: no fonts, no scripts, no pictures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from autograde import repository  # noqa: E402

project = "Transformers, from the inside"
author = ""
copyright = "the authors; code MIT, text and figures CC BY 4.0"
language = "en"
root_doc = "index"

extensions = ["myst_nb", "website.extension"]
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True  # $$…$$ in a paragraph, as JupyterLab has it
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # else from a CDN; the pages have no widgets
nb_merge_streams = True
html_math_renderer = "mathml"

html_theme = "sphinx_book_theme"
html_title = project
html_search_language = "en-zh"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_use_index = False
html_last_updated_fmt = None
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": f"https://github.com/{repository.slug()}",
    "repository_branch": repository.tag(),
    "path_to_docs": "notebooks",
    "use_repository_button": True,
    "launch_buttons": {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        "notebook_interface": "jupyterlab",
    },
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "use_download_button": False,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
