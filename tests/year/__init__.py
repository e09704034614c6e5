"""A year of a business by card, with every fault at once."""
