"""From a graph to a text of the model language that reads like a person's."""

from aisc.frontend.lang.printing.model import Printed, printed

__all__ = ["Printed", "printed"]
