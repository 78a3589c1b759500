// Of pybind11 only this small header: all of it would take seconds to compile, in each test.
#include <pybind11/conduit/wrap_include_python_h.h>

#include <stdexcept>

static long sum(long left, long right) {
    long result;
    if (__builtin_add_overflow(left, right, &result)) throw std::overflow_error("too large");
    return result;
}

static PyObject *add(PyObject *, PyObject *arguments) {
    long left, right;
    if (!PyArg_ParseTuple(arguments, "ll", &left, &right)) return nullptr;
    try {
        return PyLong_FromLong(sum(left, right));
    } catch (const std::overflow_error &error) {
        PyErr_SetString(PyExc_OverflowError, error.what());
        return nullptr;
    }
}

static PyMethodDef methods[] = {
    {"add", add, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_pairs", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr,
};

PyMODINIT_FUNC PyInit__pairs() { return PyModule_Create(&definition); }
