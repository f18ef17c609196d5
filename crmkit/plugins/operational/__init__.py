"""Operational plugins: the daily work of sales, marketing and service."""
