cdef extern from "sum.h":
    double tiny_sum(double, double)
