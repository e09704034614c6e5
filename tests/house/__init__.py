"""The house rules, checked over the source tree itself."""
