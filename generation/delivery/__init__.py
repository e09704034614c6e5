"""Work handed to workers, and its results taken back."""
