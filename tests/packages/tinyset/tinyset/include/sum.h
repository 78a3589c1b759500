double tiny_sum(double, double);
