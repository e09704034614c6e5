"""Attacks, made by code: pictures that cost more than they are worth, and connections that hold what others need."""
