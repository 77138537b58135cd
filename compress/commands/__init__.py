"""The command line of compress: options and commands."""
