"""A machine that executes PTX on arrays of threads, and finds what a lockstep run would hide."""
