"""The wheelfile stage."""
