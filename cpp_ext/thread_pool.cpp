#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace rt_swap {
namespace {

constexpr int kMaxThreads = 64;

// One parallel_for. Lives on its caller's stack, and leaves the queue before the caller returns.
struct Job {
  void (*work)(void*, int);
  void* context;
  int count;
  std::atomic<int> next{0};  // first chunk nobody has taken
  int seats;                 // how many more helpers may join; guarded by Pool::mutex
  int helpers = 0;           // helpers at work; guarded by Pool::mutex
};

// Takes chunks until there are none.
void drain(Job* job) {
  for (int k = job->next.fetch_add(1); k < job->count; k = job->next.fetch_add(1))
    job->work(job->context, k);
}

class Pool {
 public:
  void run(Job* job) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start_threads(job->seats);
      queue_.push_back(job);
    }
    for (int k = 0; k < job->seats; ++k) wake_.notify_one();
    drain(job);
    // nobody may join any more, and those who have must be done before the job's stack frame goes
    std::unique_lock<std::mutex> lock(mutex_);
    queue_.remove(job);
    done_.wait(lock, [job] { return job->helpers == 0; });
  }

 private:
  void start_threads(int wanted) {
    while (started_ < wanted) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // the system gives no more threads; the caller does the work itself
      }
      ++started_;
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      auto open =
          std::find_if(queue_.begin(), queue_.end(), [](Job* job) { return job->seats > 0; });
      if (open == queue_.end()) {
        wake_.wait(lock);
        continue;
      }
      Job* job = *open;
      --job->seats;
      ++job->helpers;
      lock.unlock();
      drain(job);
      lock.lock();
      if (--job->helpers == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::list<Job*> queue_;
  int started_ = 0;
};

// Never destroyed: its threads wait until the process ends, also while the interpreter is being
// taken down.
Pool* g_pool = nullptr;

Pool* pool() {
  static const bool once = [] {
    g_pool = new Pool;
#if defined(__unix__) || defined(__APPLE__)
    // a forked child inherits no threads and perhaps a locked mutex: it gets a pool of its own
    pthread_atfork(nullptr, nullptr, [] { g_pool = new Pool; });
#endif
    return true;
  }();
  (void)once;
  return g_pool;
}

}  // namespace

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(int count, int threads, void (*work)(void*, int), void* context) {
  if (threads <= 0) threads = usable_cores();
  threads = std::min({threads, count, kMaxThreads});
  if (threads <= 1) {
    for (int k = 0; k < count; ++k) work(context, k);
    return;
  }
  Job job;
  job.work = work;
  job.context = context;
  job.count = count;
  job.seats = threads - 1;
  pool()->run(&job);
}

}  // namespace rt_swap
