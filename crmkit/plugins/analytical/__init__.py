"""Analytical plugins: what the records tell."""
