"""The ci stage."""
