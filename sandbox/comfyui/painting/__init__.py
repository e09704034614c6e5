"""Paints a picture on the CPU from a sketch, a prompt and a seed. Deterministic."""
