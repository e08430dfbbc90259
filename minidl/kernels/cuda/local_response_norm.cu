// Local response normalisation, one pass each way; the mathematics is in minidl/ops/local_response_norm.py.
//
// Pixels lie one after the other, so a window over channels is a run of memory that ends where its pixel does. A block does
// TILE elements in a row: each thread loads EACH of them, all before it uses the first, and what the windows add up goes to
// shared memory. The few elements that a window holds beyond the tile's ends are read, and computed, again.

const int BLOCK = 256, EACH = 16 / sizeof(real), TILE = BLOCK * EACH;
const int AT_LEAST = 2;  // blocks at a time on a processor; if that is left open, the compiler spills registers to fit more

// d^-beta, the usual 3/4 as d^-1/2 * d^-1/4
__device__ real mdl_negative_power(real d, double beta) {
  if (beta != 0.75) return pow(d, real(-beta));
  const real root = rsqrt(d);
  return root * sqrt(root);
}

// The part of the window from i - before to i + after that is in i's pixel and in the tile is tile[low] ... tile[high - 1];
// elements first ... start - 1 of the array, and start + TILE ... stop - 1, are the rest of it.
struct mdl_window {
  index first, stop;
  int low, high;
};

__device__ mdl_window mdl_window_at(index i, index start, index channel, index channels, index before, index after) {
  mdl_window window;
  window.first = i - min(channel, before);
  window.stop = i + min(channels - 1 - channel, after) + 1;
  window.low = max(window.first, start) - start;
  window.high = min(window.stop, start + TILE) - start;
  return window;
}

// The sum of squares over a window whose tile of squares is at `start`.
__device__ real mdl_sum_of_squares(const real* squares, const real* x, index start, const mdl_window& window) {
  real sum = 0;
  for (int j = window.low; j < window.high; j++) sum += squares[j];
  for (index j = window.first; j < start; j++) sum += x[j] * x[j];
  for (index j = start + TILE; j < window.stop; j++) sum += x[j] * x[j];
  return sum;
}

// d = k + alpha/size * sum of x[j]^2 over the window;  y = x * d^-beta
extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_local_response_norm_forward(const real* __restrict__ x, real* __restrict__ y, long long elements, long long pixel,
                                    long long before, long long after, double scale, double beta, double k) {
  __shared__ real squares[TILE];
  const index count = elements, channels = pixel, step = BLOCK % channels;
  for (index start = (index)blockIdx.x * TILE; start < count; start += (index)gridDim.x * TILE) {
    real value[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) value[e] = x[min(start + e * BLOCK + (index)threadIdx.x, count - 1)];
#pragma unroll
    for (int e = 0; e < EACH; e++) squares[e * BLOCK + threadIdx.x] = value[e] * value[e];
    __syncthreads();
    index channel = (start + threadIdx.x) % channels;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const index i = start + e * BLOCK + threadIdx.x;
      if (i < count) {
        const mdl_window window = mdl_window_at(i, start, channel, channels, before, after);
        const real denominator = real(scale) * mdl_sum_of_squares(squares, x, start, window) + real(k);
        y[i] = value[e] * mdl_negative_power(denominator, beta);
      }
      channel += step;  // a division takes longer
      if (channel >= channels) channel -= channels;
    }
    __syncthreads();  // before the next tile overwrites this one
  }
}

// What element j outside of the tile adds to the gradients of its neighbours; `channel` is its own.
__device__ real mdl_term(const real* gy, const real* x, index j, index channel, index channels, index before, index after,
                         double scale, double beta, double k) {
  real sum = 0;
  const index stop = j + min(channels - 1 - channel, after) + 1;
  for (index i = j - min(channel, before); i < stop; i++) sum += x[i] * x[i];
  const real d = real(scale) * sum + real(k);
  return gy[j] * mdl_negative_power(d, beta) * x[j] / d;
}

// gx = gy * d^-beta - 2 * alpha/size * beta * x * sum of gy * d^-beta * x / d over the window reversed. d is computed again: to
// write it in forward, and to read it here, would take longer.
extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_local_response_norm_backward(const real* __restrict__ gy, const real* __restrict__ x, real* __restrict__ gx,
                                     long long elements, long long pixel, long long before, long long after, double scale,
                                     double beta, double k) {
  __shared__ real squares[TILE], terms[TILE];
  const index count = elements, channels = pixel, step = BLOCK % channels;
  for (index start = (index)blockIdx.x * TILE; start < count; start += (index)gridDim.x * TILE) {
    real value[EACH], direct[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const index i = min(start + e * BLOCK + (index)threadIdx.x, count - 1);
      value[e] = x[i];
      direct[e] = gy[i];
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) squares[e * BLOCK + threadIdx.x] = value[e] * value[e];
    __syncthreads();
    index channel = (start + threadIdx.x) % channels;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const index i = start + e * BLOCK + threadIdx.x;
      if (i < count) {
        const mdl_window window = mdl_window_at(i, start, channel, channels, before, after);
        const real denominator = real(scale) * mdl_sum_of_squares(squares, x, start, window) + real(k);
        direct[e] *= mdl_negative_power(denominator, beta);
        terms[e * BLOCK + threadIdx.x] = direct[e] * value[e] / denominator;
      }
      channel += step;
      if (channel >= channels) channel -= channels;
    }
    __syncthreads();
    channel = (start + threadIdx.x) % channels;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const index i = start + e * BLOCK + threadIdx.x;
      if (i < count) {
        const mdl_window window = mdl_window_at(i, start, channel, channels, after, before);
        real sum = 0;
        for (int j = window.low; j < window.high; j++) sum += terms[j];
        for (index j = window.first; j < start; j++)
          sum += mdl_term(gy, x, j, channel + j - i, channels, before, after, scale, beta, k);
        for (index j = start + TILE; j < window.stop; j++)
          sum += mdl_term(gy, x, j, channel + j - i, channels, before, after, scale, beta, k);
        gx[i] = direct[e] - real(2 * scale * beta) * value[e] * sum;
      }
      channel += step;
      if (channel >= channels) channel -= channels;
    }
    __syncthreads();
  }
}
