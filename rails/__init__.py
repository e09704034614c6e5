"""Payments: one core, and a folder for every rail that feeds it."""
