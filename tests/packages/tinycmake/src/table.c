#include <Python.h>
#include "table.h"

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_table", NULL, -1, NULL};
PyMODINIT_FUNC PyInit__table(void)
{
    PyObject *m = PyModule_Create(&module);
    PyModule_AddIntConstant(m, "ITEM", ITEM);
    PyModule_AddIntConstant(m, "LIMIT", LIMIT);
    return m;
}
