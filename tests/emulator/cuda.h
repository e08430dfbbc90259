// What a .cu file needs to become a C++ program that runs on the CPU: CUDA's words, and a launcher for each kernel.
//
// The threads of a block run one after the other, in the order asked for, each until it is done or comes to __syncthreads(). They
// run in fibers, which have a stack of their own and a place to go on from: a thread that comes to a barrier keeps its fiber, and
// the next thread begins in another one. When all have come to the barrier, all go on. Blocks run one after the other. Shared
// arrays are ordinary static ones, in a section of their own that is filled with NaN before each block. With FLUSH_TO_ZERO, as CuPy
// compiles for a GPU, floats too small for their usual form are read and written as 0, where the processor can do that.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#undef INFINITY  // the GPU's compiler has no header that defines them
#undef NAN

#define __global__
#define __device__ __attribute__((unused))
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __constant__ static
#define __shared__ static __attribute__((section("shared_arrays"), used))
#define __syncthreads() emulator::barrier(__LINE__)

using std::abs, std::ceil, std::exp, std::exp2, std::expm1, std::fabs, std::floor, std::fma, std::fmax, std::fmin, std::fmod;
using std::isfinite, std::isinf, std::isnan, std::log, std::log1p, std::log2, std::pow, std::rint, std::sqrt, std::tanh;
using std::trunc;

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
inline float rsqrt(float x) { return 1 / sqrt(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(((unsigned long long)a * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return ((unsigned __int128)a * b) >> 64; }
template <class T>
T __ldg(const T* p) {
  return *p;
}

#define VECTORS(T, name)                                          \
  struct alignas(2 * sizeof(T)) name##2 {                         \
    T x, y;                                                       \
  };                                                              \
  struct alignas(sizeof(T) > 4 ? 16 : 4 * sizeof(T)) name##4 {    \
    T x, y, z, w;                                                 \
  };                                                              \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }      \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(float, float)
VECTORS(double, double)
VECTORS(int, int)
VECTORS(unsigned char, uchar)
VECTORS(unsigned int, uint)

struct dim3 {
  unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

// The ends of the section of shared arrays come from the linker; the section is there even if no kernel has such an array.
extern "C" __attribute__((visibility("hidden"))) char __start_shared_arrays[], __stop_shared_arrays[];
__shared__ char never_used;

namespace emulator {

const size_t STACK = 1 << 16;
const unsigned MOST = 1024;  // threads of a block

struct Fiber {
  char* stack;
  bool begun;
  void* place[5];  // to go on from
};

struct Thread {
  Fiber* fiber;
  bool done;
  int line;  // of the barrier where it waits
};

static Fiber fibers[MOST];
static Thread threads[MOST];
static unsigned numbers[MOST];  // of the threads, in the order in which they run
static unsigned count, begun;   // how many there are, and how many of them have begun
static Thread* current;
static Fiber* fiber;  // the one that runs
static void* scheduler[5];
static void (*body)(void**);
static void** arguments;
static char message[200];

// The compiler's own jumps: swapcontext asks the system for the signals' mask, and the sanitizer looks over the stack at longjmp.
#define JUMPS __attribute__((noinline, no_sanitize("address")))

static JUMPS void jump(void** place) { __builtin_longjmp(place, 1); }

// From a fiber back to the scheduler.
static JUMPS void leave() {
  if (!__builtin_setjmp(fiber->place)) jump(scheduler);
}

static void barrier(int line) {
  current->line = line;
  leave();
}

static void go(unsigned number) {
  current = &threads[number];
  threadIdx = {number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y};
}

// What a fiber does, for ever: threads that have not begun, one after the other. Where one waits, `begun` has come to `count` by
// the time that it goes on.
static void live() {
  for (;; leave()) {
    while (begun < count) {
      go(numbers[begun++]);
      *current = {fiber, false, 0};
      body(arguments);
      current->done = true;
    }
  }
}

static JUMPS void resume(Fiber* next) {
  fiber = next;
  if (__builtin_setjmp(scheduler)) return;
  if (fiber->begun) jump(fiber->place);
  fiber->begun = true;
  if (!fiber->stack) fiber->stack = static_cast<char*>(malloc(STACK));
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber->stack;
  context.uc_stack.ss_size = STACK;
  makecontext(&context, live, 0);
  setcontext(&context);
}

enum Order { FORWARD, REVERSE, SHUFFLED };

// A new order of 0 ... size - 1. Shuffled: Fisher and Yates, with Marsaglia's xorshift generator.
static void arrange(unsigned* list, unsigned size, int order, unsigned long long& state) {
  for (unsigned i = 0; i < size; i++) list[i] = order == REVERSE ? size - 1 - i : i;
  for (unsigned i = size; order == SHUFFLED && i > 1; i--) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    std::swap(list[i - 1], list[state % i]);
  }
}

__attribute__((no_sanitize("address"))) static void poison_shared_memory() {
  for (volatile char* p = __start_shared_arrays; p < __stop_shared_arrays; p++) *p = char(0xff);  // NaN, or -1
}

static bool all_alike() {
  for (unsigned i = 1; i < count; i++) {
    const Thread &a = threads[0], &b = threads[i];
    if (a.done == b.done && (a.done || a.line == b.line)) continue;
    char where[2][40];
    for (int k = 0; k < 2; k++) {
      const Thread& thread = k ? b : a;
      snprintf(where[k], sizeof where[k], thread.done ? "is done" : "waits in line %d", thread.line);
    }
    snprintf(message, sizeof message, "divergent __syncthreads: thread 0 %s, thread %u %s", where[0], i, where[1]);
    return false;
  }
  return true;
}

static bool run_block(int order, unsigned long long& state) {
  poison_shared_memory();
  arrange(numbers, count, order, state);
  begun = 0;
  for (Fiber* free = fibers; begun < count; free++) resume(free);
  while (all_alike()) {
    if (threads[0].done) return true;
    arrange(numbers, count, order, state);
    for (unsigned i = 0; i < count; i++) {
      go(numbers[i]);
      resume(current->fiber);
    }
  }
  for (Fiber& f : fibers) f.begun = false;  // some wait at a barrier, for ever
  return false;
}

// Floats too small for their usual form become 0 while this lives. A GPU does that to float alone, an x86 processor to double too.
struct FlushToZero {
#if defined(FLUSH_TO_ZERO) && defined(__SSE__)
  unsigned before = __builtin_ia32_stmxcsr();
  FlushToZero() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~FlushToZero() { __builtin_ia32_ldmxcsr(before); }
#endif
};

// What went wrong, or null.
static const char* launch(void (*kernel)(void**), void** args, dim3 grid, dim3 block, int order, unsigned long long state) {
  [[maybe_unused]] FlushToZero while_it_runs;
  body = kernel, arguments = args, gridDim = grid, blockDim = block;
  count = block.x * block.y * block.z;
  unsigned blocks = grid.x * grid.y * grid.z;
  unsigned* list = static_cast<unsigned*>(malloc(blocks * sizeof(unsigned)));
  arrange(list, blocks, order, state);
  bool right = true;
  for (unsigned i = 0; i < blocks && right; i++) {
    blockIdx = {list[i] % grid.x, list[i] / grid.x % grid.y, list[i] / grid.x / grid.y};
    right = run_block(order, state);
  }
  free(list);
  return right ? nullptr : message;
}

template <class T>
struct NameOf {
  static_assert(sizeof(T) == 0, "a kernel's parameters are long long, double, or pointers to what the emulator knows");
};
#define NAME(T, text) \
  template <>         \
  struct NameOf<T> {  \
    static constexpr const char* value = text; \
  };
#define ARRAY(T) NAME(T*, #T "*") NAME(const T*, "const " #T "*")
ARRAY(float) ARRAY(double) ARRAY(unsigned char) ARRAY(int) ARRAY(long long) ARRAY(unsigned int)
NAME(long long, "long long") NAME(double, "double")

template <class... P>
const char* parameters(void (*)(P...)) {
  static char text[1000];
  text[0] = 0;
  const char* names[] = {NameOf<P>::value...};
  for (const char* name : names) strcat(strcat(text, name), ",");
  return text;
}

template <class... P, size_t... i>
void call(void (*kernel)(P...), void** args, std::index_sequence<i...>) {
  kernel(*static_cast<P*>(args[i])...);
}

template <class... P>
void call(void (*kernel)(P...), void** args) {
  call(kernel, args, std::index_sequence_for<P...>());
}

}  // namespace emulator

#define EXPORTED extern "C" __attribute__((visibility("default")))
#define KERNEL(name)                                                                                                      \
  EXPORTED const char* parameters_of_##name() { return emulator::parameters(name); }                                      \
  EXPORTED const char* launch_##name(void** args, const unsigned* grid, const unsigned* block, int order, uint64_t seed) { \
    return emulator::launch([](void** a) { emulator::call(name, a); }, args, {grid[0], grid[1], grid[2]},                 \
                            {block[0], block[1], block[2]}, order, seed * 2 + 1);                                         \
  }
