/* The floor of guest memory access: memcpy, of the very pages that somebody else's figure was taken with.
 *
 * A CPython extension, `copy`: run(count, to, source) copies source to the equally long buffer `to` so many times and returns
 * the ns of one copy. Which physical pages a process gets decides how well they share a cache, and two processes differ by more
 * than the goal allows; so the yardstick comes into the process and copies between its buffers. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static PyObject *run(PyObject *self, PyObject *args)
{
    Py_buffer to, source;
    unsigned long count;
    double ns = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "kw*y*", &count, &to, &source))
        return NULL;
    if (!count || to.len != source.len) {
        PyErr_SetString(PyExc_ValueError, "one copy or more, between buffers of one length");
    } else {
        double start = now();
        for (unsigned long i = 0; i < count; i++) {
            memcpy(to.buf, source.buf, to.len);
            __asm__ volatile("" ::"r"(to.buf) : "memory"); /* the compiler must believe that each copy is looked at */
        }
        ns = (now() - start) / count;
    }
    PyBuffer_Release(&to);
    PyBuffer_Release(&source);
    return PyErr_Occurred() ? NULL : PyFloat_FromDouble(ns);
}

static PyMethodDef methods[] = {{"run", run, METH_VARARGS, "Copy one buffer to another, so many times."}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "copy", NULL, -1, methods, 0, 0, 0, 0};

PyMODINIT_FUNC PyInit_copy(void)
{
    return PyModule_Create(&module);
}
