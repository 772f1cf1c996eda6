"""What measures, compares, judges and trains; no user's video goes through here."""
