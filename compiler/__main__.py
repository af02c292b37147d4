"""``python -m aisc``."""

from aisc.cli import main

main()
