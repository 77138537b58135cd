"""Formats of table files that need more than a call of pandas."""
