"""Running what was compiled: executables, the format of bundles, runs under guard."""
