"""Calibration data: texts, hidden states, ways of choosing, samples."""
