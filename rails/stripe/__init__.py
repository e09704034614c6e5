"""The card rail: Stripe Checkout. Nothing outside this folder names Stripe."""
