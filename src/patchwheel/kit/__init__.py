"""The kit stage."""
