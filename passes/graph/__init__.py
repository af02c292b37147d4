"""Graph passes: one transformation per file."""
