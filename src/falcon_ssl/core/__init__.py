"""What every room may use, and nothing of ours besides."""
