// The sum of a vector over the workers of one machine, in memory that they share.
//
// Each worker copies its vector in; each then adds up one part of all vectors, in the order of the ranks; each copies
// the whole sum out. So every worker has the same bits, whatever their number of threads.

#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "operator.h"
#include "parallel.h"
#include "vector.h"

namespace mvit {
namespace {

constexpr int MOST_WORKERS = 64;
constexpr int SPINS = 2000;
constexpr long LINE = 16;  // floats of a cache line
constexpr size_t HEADER = 4096;

struct Meeting {
  std::atomic<uint32_t> generation;  // counts arrivals, to sleep on
  std::atomic<uint32_t> arrived[MOST_WORKERS];  // meetings that each worker has come to
};
static_assert(sizeof(Meeting) <= HEADER);

struct Group {
  Meeting *meeting = nullptr;
  float *vectors, *sum;
  long stride;
  int rank, workers;
  double patience_s;
  uint32_t meetings = 0;
  int missing = -1;  // the worker that did not come
  double seconds = 0;  // in all sums so far
} group;

double now_s() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Who has not come to the current meeting, or -1.
int absent() {
  for (int worker = 0; worker < group.workers; ++worker)
    if ((int32_t)(group.meeting->arrived[worker].load(std::memory_order_acquire) - group.meetings) < 0) return worker;
  return -1;
}

// Waits for all workers; false once patience is at its end.
bool meet() {
  Meeting &meeting = *group.meeting;
  meeting.arrived[group.rank].store(++group.meetings, std::memory_order_release);
  meeting.generation.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &meeting.generation, FUTEX_WAKE, MOST_WORKERS, nullptr, nullptr, 0);
  for (int spin = 0; spin < SPINS; ++spin)
    if (absent() < 0) return true;
  for (double deadline = now_s() + group.patience_s;;) {
    uint32_t seen = meeting.generation.load(std::memory_order_seq_cst);
    int worker = absent();
    if (worker < 0) return true;
    if (now_s() > deadline) {
      group.missing = worker;
      return false;
    }
    timespec nap{0, 100'000'000};
    syscall(SYS_futex, &meeting.generation, FUTEX_WAIT, seen, &nap, nullptr, 0);
  }
}

long rounded(long size) { return (size + LINE - 1) / LINE * LINE; }
size_t room(int workers, long stride) { return HEADER + (size_t)(workers + 1) * stride * sizeof(float); }

bool all_reduce(const float *vector, long size, float *out) {
  std::copy_n(vector, size, group.vectors + group.rank * group.stride);
  if (!meet()) return false;
  // Whole cache lines, which no other worker writes.
  Range mine = part_of(rounded(size) / LINE, group.rank, group.workers);
  long begin = mine.begin * LINE, end = std::min(mine.end * LINE, size);
  for_lanes((int)(end - begin), [&](int i, int lanes) {
    Vec total = load(group.vectors + begin + i, lanes);
    for (int worker = 1; worker < group.workers; ++worker)
      total += load(group.vectors + worker * group.stride + begin + i, lanes);
    store(group.sum + begin + i, total, lanes);
  });
  if (!meet()) return false;
  std::copy_n(group.sum, size, out);
  return true;
}

}  // namespace

// Bytes that a group needs for vectors of at most `size` floats.
extern "C" long mvit_group_bytes(int workers, long size) { return (long)room(workers, rounded(size)); }

// Joins the group whose memory is this file, all zero at first; 0, or the number of the error.
extern "C" int mvit_join_group(int file, int rank, int workers, long size, double patience_s) {
  if (workers > MOST_WORKERS) return EINVAL;
  long stride = rounded(size);
  void *memory = mmap(nullptr, room(workers, stride), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return errno;
  group.meeting = (Meeting *)memory;
  group.vectors = (float *)((char *)memory + HEADER);
  group.sum = group.vectors + workers * stride;
  group.stride = stride;
  group.rank = rank;
  group.workers = workers;
  group.patience_s = patience_s;
  return 0;
}

// Seconds that this worker has spent in sums, waiting included.
extern "C" double mvit_all_reduce_seconds() { return group.seconds; }

// The worker that the last sum waited for in vain, or -1.
extern "C" int mvit_missing_worker() { return group.missing; }

// vector -> its sum over the workers
OPERATOR_THAT_CAN_FAIL(mvit_all_reduce) {
  double began = now_s();
  bool done = all_reduce(in.floats(0), in.size(0), in.floats(1));
  group.seconds += now_s() - began;
  return done ? 0 : 1;
}

}  // namespace mvit
