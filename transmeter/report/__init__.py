"""Rankings as tables, charts and sections of a report."""
