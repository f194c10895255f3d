// What the process tells the library before the first operator runs, and asks it.

#include <type_traits>

#include "bfloat16.h"
#include "parallel.h"

extern "C" void mvit_set_threads(int count) { mvit::num_threads = count; }
extern "C" int mvit_keeps_bf16() { return std::is_same_v<mvit::Kept, mvit::Bf16>; }
