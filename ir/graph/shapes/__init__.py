"""What type rules of operators are made of: inference of shapes, checks of sizes, windows."""
