"""The wheel stage."""
