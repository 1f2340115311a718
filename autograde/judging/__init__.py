"""From an implementation to a report: run it, compare, ask the laws, name the mistake."""
