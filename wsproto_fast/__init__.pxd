# Makes the package known to cimport: `from wsproto_fast.connection cimport Connection`.
