import re
import sys

pure, target = sys.argv[1:]
with open(pure) as stream:
    names = re.findall(r'"(\w+)"', re.search(r"NAMES = \[(.*)\]", stream.read())[1])
with open(target, "w") as stream:
    stream.write(f"UNITS = {tuple(names)!r}\n")
