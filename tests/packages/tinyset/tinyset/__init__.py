"""Sums, and the key that their headers had."""

from tinyset._keyed import KEY
from tinyset._plain import total

__all__ = ["KEY", "total"]
