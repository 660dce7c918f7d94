"""Trials: parameters overridden on a command line, and tables and plots of many outcomes."""
