"""Random single layers and small nets, measured in turn with other runtimes."""
