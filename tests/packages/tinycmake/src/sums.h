int add(int one, int two);
