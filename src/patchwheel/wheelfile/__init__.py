"""Wheels as files: read strictly, edited as text, written with a true RECORD.

The entries of a `WheelFile` keep their compressed bytes, so what did not change is not compressed
again. `record` has the typed form of `patchwheel.json`, and `sbom` the SBOM that follows from it.
"""
