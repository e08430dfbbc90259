// Images from bytes to a network's input, one pass; the mathematics is in minidl/data/input_step.py.
//
// A thread does one place (i, j, c) of IMAGES crops, one after the other: it finds out where that is, and reads the mean, once.
// Neighbouring threads read neighbouring bytes, forwards or in a mirrored image backwards, and write neighbouring numbers.

const int IMAGES = 8;

// y[n,i,j,c] = (image[n / views, top + i, left + j, c] - mean[i,j,c] + noise[n,c]) / divide, with j from the other side if
// mirrored; top and left are crop n's.
// The mean of (i,j,c) is mean[start + i * mean_row + j * mean_column + c].
extern "C" __global__ void mdl_input_step(const unsigned char* __restrict__ images, const long long* __restrict__ tops,
                                          const long long* __restrict__ lefts, const unsigned char* __restrict__ flips,
                                          const real* __restrict__ mean, const real* __restrict__ noise, real* __restrict__ y,
                                          long long number, long long views, long long height, long long width, long long out_h,
                                          long long out_w, long long start, long long mean_row, long long mean_column,
                                          double divide) {
  const index line = (index)out_w * 3, places = (index)out_h * line, last = (index)number - 1;
  const index batches = ((index)number + IMAGES - 1) / IMAGES, threads = (index)gridDim.x * blockDim.x;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < batches * places; thread += threads) {
    const index place = thread % places, first = thread / places * IMAGES;
    const index i = place / line, j = place % line / 3, c = place % 3;
    const real middle = mean[(index)start + i * (index)mean_row + j * (index)mean_column + c];
    unsigned char value[IMAGES];
#pragma unroll
    for (int k = 0; k < IMAGES; k++) {
      const index n = min(first + k, last), row = tops[n] + i, column = lefts[n] + (flips[n] ? (index)out_w - 1 - j : j);
      value[k] = images[((n / (index)views * (index)height + row) * (index)width + column) * 3 + c];
    }
#pragma unroll
    for (int k = 0; k < IMAGES; k++) {
      const index n = first + k;
      if (n <= last) y[n * places + place] = (real(value[k]) - middle + noise[n * 3 + c]) / real(divide);
    }
  }
}
