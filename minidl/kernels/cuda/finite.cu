// Is every number finite? One pass over memory; the meaning is in minidl/optim/finite.py.

const int BATCH = 4;  // elements that a thread loads before it uses the first

// found[0] = 1 if an element of x is NaN or infinite. Whoever finds one writes the same number, so the order does not matter.
extern "C" __global__ void mdl_note_not_finite(const real* __restrict__ x, int* __restrict__ found, long long size) {
  const index count = size, threads = (index)gridDim.x * blockDim.x;
  bool finite = true;
  for (index first = (index)blockIdx.x * blockDim.x + threadIdx.x; first < count; first += BATCH * threads) {
    real value[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const index i = first + j * threads;
      value[j] = i < count ? x[i] : real(0);
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++) finite = finite && isfinite(value[j]);
  }
  if (!finite) found[0] = 1;
}
