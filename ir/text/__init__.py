"""Text forms of both IRs: printers and parsers."""
