"""What is written while something runs: metrics, progress, files, numbers as text."""
