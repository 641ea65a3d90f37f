"""Measurement and reports."""
