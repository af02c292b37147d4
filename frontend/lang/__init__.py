"""The model language: files in which a person writes a network."""
