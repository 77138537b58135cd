"""Evaluation: tasks, predictions, metrics, what a model costs, the Pareto front."""
