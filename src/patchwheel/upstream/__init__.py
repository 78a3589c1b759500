"""The upstream stage."""
