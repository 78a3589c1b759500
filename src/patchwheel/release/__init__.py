"""What is published: compiled wheels, the files beside them, and the proof that they are true.

`publish` completes, stages and indexes folders of release wheels, `check` compares all of it,
`validate` installs it, and `recompile` compares wheels with a compile. A graft is never published.
"""
