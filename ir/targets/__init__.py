"""Target descriptions shipped with aisc."""
