"""Automatic top-ups: a pack bought with a saved payment method when credits run low."""
