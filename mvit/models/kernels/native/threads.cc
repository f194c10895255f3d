// What the process sets before the first operator runs.

#include "parallel.h"

extern "C" void mvit_set_threads(int count) { mvit::num_threads = count; }
