from tinyset.near cimport tiny_sum


def total(values):
    cdef double result = 0.0
    for value in values:
        result = tiny_sum(result, value)
    return result
