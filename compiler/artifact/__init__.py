"""What a compilation leaves on disk: the cache of kernels and models, saved bundles."""
