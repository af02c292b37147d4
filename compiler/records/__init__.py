"""What was tuned: kept by a database, found by the compiler, locked by files."""
