"""Tasks: one Python function for each command, built from text, models and train; the command line is a skin over them."""
