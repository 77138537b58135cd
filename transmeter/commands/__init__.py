"""The command line of transmeter: options and commands."""
