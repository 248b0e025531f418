"""What a run leaves behind: names, writing, reading, meaning; no torch."""
