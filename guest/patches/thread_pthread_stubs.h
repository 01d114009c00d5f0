/* Takes the place of CPython's do-nothing stubs: the pthread calls are in guest/src/sched.c. */
#include "cpython/pthread_stubs.h"
#include "thread_pthread.h"
