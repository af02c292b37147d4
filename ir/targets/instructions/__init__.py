"""Instructions of processors, one description for each architecture."""
