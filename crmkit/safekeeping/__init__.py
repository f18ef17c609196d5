"""Keeping a workspace safe: examine, salvage, back up, restore, and take everything out in open formats."""
