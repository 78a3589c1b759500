"""Wheels as files: read strictly, edited as text, written with a true RECORD.

`read_wheel` takes a path and gives a `WheelFile`, whose entries keep their compressed bytes: a wheel
is written again without compressing what did not change. `record` has the typed form of
`patchwheel.json`, and `sbom` the CycloneDX document that follows from it.
"""
