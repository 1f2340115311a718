"""Practice for the interview: the drill, the Anki deck, the mock interview. Nothing here needs torch but `judge`."""
