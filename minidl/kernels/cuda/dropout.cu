// Dropout, whose mask is made where it is used; the mathematics is in minidl/ops/dropout.py, the generator's in minidl/random.py.
//
// The generator makes the eight words of a block at once, at the price of some 300 instructions. So each thread makes one block,
// and leaves eight bits, one for each word, to those threads that have the elements. Elements are loaded before the bits are
// made, so that the memory is busy in the meantime.

typedef unsigned long long word;

const int BLOCK = 256, WORDS = 8, TILE = BLOCK * WORDS;

// A draw's key and counter, without the block; words below `limit` keep their element.
struct mdl_draw {
  word key0, key1, counter1, counter2, counter3, limit;
};

// Philox4x64-10: bit j tells whether word 8 * block + j of the draw is below the limit.
__device__ unsigned int mdl_kept(const mdl_draw& draw, word block) {
  word counter[4] = {block + 1, draw.counter1, draw.counter2, draw.counter3}, key0 = draw.key0, key1 = draw.key1;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const word high0 = __umul64hi(counter[0], 0xD2E7470EE14C6C93ULL), low0 = counter[0] * 0xD2E7470EE14C6C93ULL;
    const word high1 = __umul64hi(counter[2], 0xCA5A826395121157ULL), low1 = counter[2] * 0xCA5A826395121157ULL;
    counter[0] = high1 ^ counter[1] ^ key0;
    counter[1] = low1;
    counter[2] = high0 ^ counter[3] ^ key1;
    counter[3] = low0;
    key0 += 0x9E3779B97F4A7C15ULL;
    key1 += 0xBB67AE8584CAA73BULL;
  }
  unsigned int bits = 0;
#pragma unroll
  for (int j = 0; j < WORDS; j++) {
    const word half = j % 2 == 0 ? counter[j / 2] & 0xFFFFFFFFULL : counter[j / 2] >> 32;
    if (half < draw.limit) bits |= 1u << j;
  }
  return bits;
}

#define MDL_DRAW \
  long long seed, long long id0, long long number, long long id1, long long id2, long long limit

#define MDL_AS_DRAW {(word)seed, (word)id0, (word)number, (word)id1, (word)id2, (word)limit}

// y[i] = x[i] * mask[i] * scale, where word i of the draw makes mask[i]
extern "C" __global__ void __launch_bounds__(BLOCK)
    mdl_dropout_forward(const real* __restrict__ x, real* __restrict__ y, unsigned char* __restrict__ mask, long long size,
                        MDL_DRAW, double scale) {
  __shared__ unsigned char kept[BLOCK];
  const mdl_draw draw = MDL_AS_DRAW;
  const index count = size, tiles = (count + TILE - 1) / TILE;
  for (index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const index first = tile * TILE + (index)threadIdx.x;
    real value[WORDS];
#pragma unroll
    for (int j = 0; j < WORDS; j++) value[j] = x[min(first + j * BLOCK, count - 1)];
    kept[threadIdx.x] = mdl_kept(draw, (word)tile * BLOCK + threadIdx.x);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < WORDS; j++) {
      const unsigned int bit = kept[(j * BLOCK + threadIdx.x) / WORDS] >> threadIdx.x % WORDS & 1;
      if (first + j * BLOCK < count) {
        y[first + j * BLOCK] = value[j] * real(bit) * real(scale);
        mask[first + j * BLOCK] = bit;
      }
    }
    __syncthreads();  // `kept` has been read before the next tile overwrites it
  }
}

// The same where x, y and mask lie in memory as (outer, rows, columns), but words are in the order (outer, columns, rows): so do
// channels-last images, with a row for each pixel. A thread does eight rows of a column, whose words are in a block or two.
extern "C" __global__ void __launch_bounds__(BLOCK)
    mdl_dropout_forward_transposed(const real* __restrict__ x, real* __restrict__ y, unsigned char* __restrict__ mask,
                                   long long outer, long long rows, long long columns, MDL_DRAW, double scale) {
  const mdl_draw draw = MDL_AS_DRAW;
  const index height = rows, width = columns, parts = (height + WORDS - 1) / WORDS, count = outer * parts * width;
  const index threads = (index)gridDim.x * blockDim.x;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < count; thread += threads) {
    const index column = thread % width, row = thread / width % parts * WORDS, n = thread / width / parts;
    const index first = (n * height + row) * width + column, number_of_rows = min(height - row, (index)WORDS);
    real value[WORDS];
#pragma unroll
    for (int j = 0; j < WORDS; j++) value[j] = j < number_of_rows ? x[first + j * width] : real(0);
    const word start = (word)(n * width + column) * height + row;
    unsigned int bits = mdl_kept(draw, start / WORDS);
    if (start % WORDS) bits = (bits | mdl_kept(draw, start / WORDS + 1) << WORDS) >> start % WORDS;
#pragma unroll
    for (int j = 0; j < WORDS; j++) {
      const unsigned int bit = bits >> j & 1;
      if (j < number_of_rows) {
        y[first + j * width] = value[j] * real(bit) * real(scale);
        mask[first + j * width] = bit;
      }
    }
  }
}

const int BATCH = 4;  // elements that a thread of the backward pass loads before it uses the first

// gx[i] = gy[i] * mask[i] * scale
extern "C" __global__ void mdl_dropout_backward(const real* __restrict__ gy, const unsigned char* __restrict__ mask,
                                                real* __restrict__ gx, long long size, double scale) {
  const index count = size, threads = (index)gridDim.x * blockDim.x;
  for (index first = (index)blockIdx.x * blockDim.x + threadIdx.x; first < count; first += BATCH * threads) {
    real value[BATCH];
    unsigned char kept[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const index i = min(first + j * threads, count - 1);
      value[j] = gy[i];
      kept[j] = mask[i];
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++)
      if (first + j * threads < count) gx[first + j * threads] = value[j] * real(kept[j]) * real(scale);
  }
}
