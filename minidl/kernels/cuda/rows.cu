// On rows of pixels or examples, (number, columns): the bias that a layer adds to each of them, and its gradient, their sum.

const int BATCH = 4;            // rows that a thread loads before it uses the first, so that the memory is kept busy
const int WIDE = 32, DEEP = 8;  // a block of WIDE * DEEP threads sums WIDE columns: a warp reads WIDE elements side by side

// In place: rows[r,o] += bias[o]
extern "C" __global__ void mdl_add_bias(real* __restrict__ rows, const real* __restrict__ bias, long long number,
                                        long long columns) {
  const index height = number, width = columns, threads = (index)gridDim.x * blockDim.x;
  const index batches = (height + BATCH - 1) / BATCH;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < batches * width; thread += threads) {
    const index row = thread / width * BATCH, column = thread % width;
    const real b = bias[column];
    real value[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; k++)
      if (row + k < height) value[k] = rows[(row + k) * width + column] + b;
#pragma unroll
    for (int k = 0; k < BATCH; k++)
      if (row + k < height) rows[(row + k) * width + column] = value[k];
  }
}

// sums[chunk,o] = sum of rows[r,o] over the rows of one chunk, `chunk` of them (the last chunk may have less). With `masked` the
// rows are a ReLU's gradient: gy where y > 0 (or is NaN), else 0, which is kept in `g`.
// Each thread sums every DEEP-th row of the chunk, then the first DEEP-th of the threads the sums, always in the same order: the
// result does not depend on the grid. The block must have WIDE * DEEP threads.
__device__ void mdl_sum_columns(bool masked, const real* __restrict__ gy, const real* __restrict__ y, real* __restrict__ g,
                                real* __restrict__ sums, index height, index width, index chunk, index chunks) {
  __shared__ real partial[DEEP][WIDE];
  const index tiles = (width + WIDE - 1) / WIDE;
  const int lane = threadIdx.x % WIDE, level = threadIdx.x / WIDE;
  for (index block = blockIdx.x; block < tiles * chunks; block += gridDim.x) {
    const index column = block % tiles * WIDE + lane, first = block / tiles * chunk, end = min(first + chunk, height);
    real sum = 0;
    if (column < width) {
#pragma unroll 4
      for (index row = first + level; row < end; row += DEEP) {
        const index i = row * width + column;
        real value = gy[i];
        if (masked) {
          if (y[i] <= real(0)) value = 0;
          g[i] = value;
        }
        sum += value;
      }
    }
    partial[level][lane] = sum;
    __syncthreads();
    if (level == 0 && column < width) {
      for (int other = 1; other < DEEP; other++) sum += partial[other][lane];
      sums[block / tiles * width + column] = sum;
    }
    __syncthreads();  // `partial` has been read before the next tile overwrites it
  }
}

extern "C" __global__ void mdl_column_sums(const real* __restrict__ rows, real* __restrict__ sums, long long number,
                                           long long columns, long long chunk, long long chunks) {
  mdl_sum_columns(false, rows, rows, sums, sums, number, columns, chunk, chunks);
}

extern "C" __global__ void mdl_masked_column_sums(const real* __restrict__ gy, const real* __restrict__ y, real* __restrict__ g,
                                                  real* __restrict__ sums, long long number, long long columns,
                                                  long long chunk, long long chunks) {
  mdl_sum_columns(true, gy, y, g, sums, number, columns, chunk, chunks);
}
