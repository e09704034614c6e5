"""The one place where ports meet the classes that serve them."""
