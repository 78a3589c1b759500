cdef inline double scaled(double value) noexcept nogil:
    return 2.0 * value
