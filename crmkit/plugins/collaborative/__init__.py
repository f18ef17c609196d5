"""Collaborative plugins: what happened with a customer, seen by everybody."""
