//! The CPU backend: blocked, vectorised kernels chosen at run time, on a persistent pool of threads.
