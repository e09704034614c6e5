"""The payment core: opens, observes, records."""
