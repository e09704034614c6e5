"""What the outside says about our money, beside what our payments say: read, compared, and never corrected."""
