"""What a model of a source alone is worth on a target of which no row is labelled."""
