"""Learners of the target alone: what a source has to beat."""
