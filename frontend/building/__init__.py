"""What every front end builds graphs with: emission and folding of core nodes, sizes that only the
run knows, regions, reports in the words of the model."""
