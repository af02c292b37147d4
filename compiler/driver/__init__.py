"""The compiler's steps from a model to an executable, their options and what watches them."""
