#define OTHER 1
