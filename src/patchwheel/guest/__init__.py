"""The guest stage."""
