import sys
from pathlib import Path

from more import ITEM

Path(sys.argv[1]).write_text(f"#define ITEM {ITEM}\n")
