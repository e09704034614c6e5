"""What all event streams of a process share."""
