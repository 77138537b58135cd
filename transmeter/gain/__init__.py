"""From held-out predictions to a gain: splits, intervals, the prior, ground truth, agreement."""
