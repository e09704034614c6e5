"""What a job is and how it is decided: pure, without I/O."""
