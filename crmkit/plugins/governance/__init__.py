"""Shipped plugins that govern: who may do what, and where keys are kept."""
