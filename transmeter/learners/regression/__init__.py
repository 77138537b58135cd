"""Learners of a quantity, by squared loss: one file per way to use rows, as in the folder above for classes."""
