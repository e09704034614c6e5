"""What the payment core keeps beside the log."""
