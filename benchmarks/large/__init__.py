"""Models whose weights are of any size, written without holding them in memory."""
