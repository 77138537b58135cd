"""Batch scoring: every (target, source, scorer) of a job into one store, with nothing lost."""
