"""What both packages stand on: nothing here knows of rankings or of models."""
