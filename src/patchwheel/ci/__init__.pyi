from . import workflows as workflows
from .workflows import cells as cells
