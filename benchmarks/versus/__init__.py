"""aisc against other runtimes: every side in a process of its own, measured in turn."""
