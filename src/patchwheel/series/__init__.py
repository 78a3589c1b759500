"""The series stage."""
