"""Score pictures with the papers' kinds of measures: galleries, scorers, paired statistics."""
