"""Stand-ins for three public price feeds of bitcoin, in one process."""
