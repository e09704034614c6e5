"""The pure rules of credits. No clock, no IO, no randomness."""
