"""Models: reading and writing, what can be removed, changed layers, the walk over blocks."""
