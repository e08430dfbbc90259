// ReLU, and ReLU of rows plus a bias; the mathematics is in minidl/ops/relu.py.
//
// Nothing is computed but a comparison, so the time is that of the memory. A thread takes BATCH elements at a time and loads
// all of them before it stores the first: otherwise too few loads are on their way to keep the memory busy. Beyond the end it
// loads the last element again and stores nothing.

const int BATCH = 4;

// max(x, 0); NaN stays NaN, as it is not <= 0
__device__ real mdl_rectified(real x) { return x <= real(0) ? real(0) : x; }

// y[i] = max(x[i], 0)
extern "C" __global__ void mdl_relu_forward(const real* __restrict__ x, real* __restrict__ y, long long size) {
  const index count = size, threads = (index)gridDim.x * blockDim.x;
  for (index first = (index)blockIdx.x * blockDim.x + threadIdx.x; first < count; first += BATCH * threads) {
    real value[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) value[j] = x[min(first + j * threads, count - 1)];
#pragma unroll
    for (int j = 0; j < BATCH; j++)
      if (first + j * threads < count) y[first + j * threads] = mdl_rectified(value[j]);
  }
}

// gx[i] = 0 where y[i] <= 0, else gy[i]
extern "C" __global__ void mdl_relu_backward(const real* __restrict__ gy, const real* __restrict__ y, real* __restrict__ gx,
                                             long long size) {
  const index count = size, threads = (index)gridDim.x * blockDim.x;
  for (index first = (index)blockIdx.x * blockDim.x + threadIdx.x; first < count; first += BATCH * threads) {
    real gradient[BATCH], output[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const index i = min(first + j * threads, count - 1);
      gradient[j] = gy[i];
      output[j] = y[i];
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++)
      if (first + j * threads < count) gx[first + j * threads] = output[j] <= real(0) ? real(0) : gradient[j];
  }
}

// In place on rows of `width` elements: rows[r,o] = max(rows[r,o] + bias[o], 0).
// Divisions are slow: the column of a thread's first element takes one, that of the next element follows from it.
extern "C" __global__ void mdl_bias_relu(real* __restrict__ rows, const real* __restrict__ bias, long long size,
                                         long long width) {
  const index count = size, columns = width, threads = (index)gridDim.x * blockDim.x;
  index first = (index)blockIdx.x * blockDim.x + threadIdx.x;
  if (first >= count) return;
  index column = first % columns;
  const index step = threads % columns;
  for (; first < count; first += BATCH * threads) {
    real value[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      value[j] = rows[min(first + j * threads, count - 1)] + bias[column];
      column += step;
      if (column >= columns) column -= columns;
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++)
      if (first + j * threads < count) rows[first + j * threads] = mdl_rectified(value[j]);
  }
}
