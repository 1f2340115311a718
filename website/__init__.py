"""The course as a website: `python course.py site`. See docs/architecture.md, "The way of one page"."""
