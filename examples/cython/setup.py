"""Builds the example in place: ``python setup.py build_ext --inplace``. Needs Cython, a C compiler and wsproto_fast."""

from Cython.Build import cythonize
from setuptools import Extension, setup

# cimport finds the .pxd files of the installed wsproto_fast by itself; they need no header and no library.
setup(name="wsproto_fast_echo", ext_modules=cythonize([Extension("echo", ["echo.pyx"])]))
