from tinyext._fast import total
from tinyext._pairs import add
from tinyext.pure import mean
from tinyext.units import UNITS

__all__ = ["UNITS", "add", "mean", "total"]
