"""One file a claim that needs more than a notebook's seconds, and results/ with every seed's numbers."""
