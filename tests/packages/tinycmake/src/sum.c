#include <Python.h>
#include "sums.h"

static PyObject *total(PyObject *self, PyObject *args)
{
    int one, two;
    if (!PyArg_ParseTuple(args, "ii", &one, &two))
        return NULL;
    return PyLong_FromLong(add(one, two));
}

static PyMethodDef methods[] = {{"total", total, METH_VARARGS, ""}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sum", NULL, -1, methods};
PyMODINIT_FUNC PyInit__sum(void) { return PyModule_Create(&module); }
