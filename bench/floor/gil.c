/* The floor of an exit that returns to Python: KVM_RUN without the GIL, then take the GIL back, nothing else.
 *
 * A CPython extension, `gil`: run(vcpu_fd, page_size, last_port) runs to a write to last_port and returns the number of exits. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static PyObject *run(PyObject *self, PyObject *args)
{
    int vcpu, size, last, ret;
    long exits = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "iii", &vcpu, &size, &last))
        return NULL;
    struct kvm_run *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (page == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    do {
        Py_BEGIN_ALLOW_THREADS
        do
            ret = ioctl(vcpu, KVM_RUN, 0);
        while (ret < 0 && errno == EINTR);
        Py_END_ALLOW_THREADS
        exits++;
    } while (!ret && page->exit_reason == KVM_EXIT_IO && page->io.port != last);
    munmap(page, size);
    if (ret < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(exits);
}

static PyMethodDef methods[] = {{"run", run, METH_VARARGS, "Run the guest to its write to a port."}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "gil", NULL, -1, methods, 0, 0, 0, 0};

PyMODINIT_FUNC PyInit_gil(void)
{
    return PyModule_Create(&module);
}
