"""What a payment is and what is credited for it: pure, without I/O."""
