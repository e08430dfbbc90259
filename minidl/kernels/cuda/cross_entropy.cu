// Softmax with cross-entropy, a block for each row of scores; the mathematics is in minidl/ops/cross_entropy.py.
//
// A row is read from memory once: its second and third reading find it in the cache. Sums are made in an order that depends on
// the size of the block only. Blocks have a power of 2 of threads, BLOCK at most.

const int BLOCK = 256;

struct mdl_sum {
  __device__ static real of(real a, real b) { return a + b; }
};

struct mdl_largest {  // a NaN may get lost: it spoils the sum of the row's exponentials anyway
  __device__ static real of(real a, real b) { return b > a ? b : a; }
};

// value of thread 0, 1, ..., all put together, for every thread
template <class Operation>
__device__ real mdl_reduce(real value, real* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] = Operation::of(shared[threadIdx.x], shared[threadIdx.x + half]);
    __syncthreads();
  }
  const real result = shared[0];
  __syncthreads();  // all have read it before the next reduction overwrites it
  return result;
}

// logp[r,c] = (x[r,c] - m) - ln sum over j of e^(x[r,j] - m), m = max over j of x[r,j]
// losses[r] = - sum over c of t[r,c] * logp[r,c], where t[r,c] is not 0: 0 times a logp of -infinity is to be 0
extern "C" __global__ void mdl_cross_entropy_forward(const real* __restrict__ x, const real* __restrict__ t,
                                                     real* __restrict__ losses, real* __restrict__ logp, long long rows,
                                                     long long classes) {
  __shared__ real shared[BLOCK];
  const index height = rows, width = classes;
  for (index row = blockIdx.x; row < height; row += gridDim.x) {
    const index first = row * width + threadIdx.x, end = (row + 1) * width;
    real largest = log(real(0));  // -infinity
    for (index i = first; i < end; i += blockDim.x) largest = mdl_largest::of(largest, x[i]);
    largest = mdl_reduce<mdl_largest>(largest, shared);
    real sum = 0;
    for (index i = first; i < end; i += blockDim.x) sum += exp(x[i] - largest);
    const real log_sum = log(mdl_reduce<mdl_sum>(sum, shared));
    real product = 0;
    for (index i = first; i < end; i += blockDim.x) {
      const real value = x[i] - largest - log_sum, target = t[i];
      logp[i] = value;
      if (target != real(0)) product += target * value;
    }
    product = mdl_reduce<mdl_sum>(product, shared);
    if (threadIdx.x == 0) losses[row] = -product;
  }
}

// gx[r,c] = gy[r] * (e^logp[r,c] * sum over j of t[r,j] - t[r,c])
extern "C" __global__ void mdl_cross_entropy_backward(const real* __restrict__ gy, const real* __restrict__ logp,
                                                      const real* __restrict__ t, real* __restrict__ gx, long long rows,
                                                      long long classes) {
  __shared__ real shared[BLOCK];
  const index height = rows, width = classes;
  for (index row = blockIdx.x; row < height; row += gridDim.x) {
    const index first = row * width + threadIdx.x, end = (row + 1) * width;
    const real upstream = gy[row];
    real sum = 0;
    for (index i = first; i < end; i += blockDim.x) sum += t[i];
    sum = mdl_reduce<mdl_sum>(sum, shared);
    for (index i = first; i < end; i += blockDim.x) gx[i] = upstream * (exp(logp[i]) * sum - t[i]);
  }
}
