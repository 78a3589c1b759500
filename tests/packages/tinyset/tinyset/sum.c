#include "sum.h"

double tiny_sum(double one, double two) { return one + two; }
