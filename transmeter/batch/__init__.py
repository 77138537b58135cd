"""Batch scoring: every (target, source, scorer) of a spec into one store, with nothing lost."""
