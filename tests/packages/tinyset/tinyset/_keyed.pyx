cdef extern from *:
    """
    #define TINY_TEXT_(x) #x
    #define TINY_TEXT(x) TINY_TEXT_(x)
    static const char *tiny_key = TINY_TEXT(TINY_KEY);
    """
    const char *tiny_key

KEY = tiny_key.decode()
