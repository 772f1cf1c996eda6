"""Benches, comparisons, evaluation and training; no user's video goes through here."""
