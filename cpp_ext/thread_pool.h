// A few threads that wait for work, so that a frame does not pay for starting them.
#pragma once

namespace rt_swap {

// Cores this process may run on (its affinity mask, where the system has one), at least 1.
int usable_cores();

// Runs work(context, k) for k in [0, count), the caller included, and returns when all are done. At
// most `threads` threads take part; 0 means usable_cores(). Any number of callers may do this at
// once; `work` must not throw. One chunk or one thread: no lock is touched.
void parallel_for(int count, int threads, void (*work)(void* context, int k), void* context);

}  // namespace rt_swap
