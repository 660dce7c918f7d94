"""Preparation of data: formats, rows, splits and the profile."""
