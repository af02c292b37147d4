"""The SIMT back end: PTX."""
