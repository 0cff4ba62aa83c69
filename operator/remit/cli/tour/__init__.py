"""The tour that `remit demo` gives: its steps, the stage they are played on, and the YAML that they apply."""

from remit.cli.tour.steps import give

__all__ = ["give"]
