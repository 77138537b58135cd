"""Tables: reading files, cleaning columns, texts, and what two tables have in common."""
