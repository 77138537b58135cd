"""Ways to use rows of the target and of a source, one file each, their average, and what a source has to beat."""
