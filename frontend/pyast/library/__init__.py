"""Functions of numpy and of Python by what they are: each handler takes a context and arguments."""
