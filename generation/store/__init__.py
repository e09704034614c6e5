"""The tables of the generation side, and how they are asked together."""
