"""``python -m aisc``."""

from aisc.cli.main import main

main()
