# cython: language_level=3
from tinyext.scale cimport scaled


def total(values):
    cdef double result = 0.0
    for value in values:
        result += scaled(value)
    return result
