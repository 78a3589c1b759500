"""What is published: compiled wheels, the files beside them, and the proof that they are true.

`publish` completes a folder of release wheels and writes its index, `check` compares all of it
offline, `stage` and `validate` do so for the wheels of CI's cells. `equivalence` compares a graft
with a compile, and `reproduce` a compile with its repetition. A graft is never published.
"""
