"""What is published: compiled wheels, the files beside them, and the proof that they are true.

`publish` completes, indexes and stages folders of release wheels, `check` compares all of it, and
`recompile` compares wheels with another compile. A graft is never published.
"""
