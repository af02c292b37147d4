"""Rule tables and their bounded, located, counted driver."""
