"""What is known of each object of a run, and how it is found again after a crash."""
