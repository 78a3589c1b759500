"""The manifest stage."""
