"""Sums and a table."""

__version__ = "1.2.0"
from tinycmake._sum import total
from tinycmake._table import ITEM, LIMIT
