"""Pictures in, the papers' kinds of numbers out: galleries, scorers, paired statistics."""
