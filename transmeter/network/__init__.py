"""Transmeter's own network: modules, losses, training, source classifiers, transfer."""
