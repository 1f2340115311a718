"""From `solutions/*.py` to notebooks: parsing, linting, building."""
