// Convolution by Winograd's tiles; the mathematics is in minidl/kernels/winograd.py.
//
// Compiled for filters of MDL_R x MDL_R elements and tiles of MDL_TILE x MDL_TILE outputs, with the matrices as macros: MDL_BT, MDL_A,
// MDL_AT, MDL_G and MDL_GT. The compiler knows every element, so that a product with 0 or 1 costs nothing.
//
// A thread transforms one tile, or one filter, of one channel, in registers; neighbouring threads do neighbouring channels, and
// read and write runs of memory. All T * T values of a tile are on their way at once, which keeps the memory busy.
//
// Values of tiles are (groups, T * T, tiles, channels of a group): a matrix for each group and each position in the tile. A block
// of stride_h x stride_w pixels counts as one pixel of stride_h * stride_w * group channels, `depth` of them.

const int TILE = MDL_TILE, R = MDL_R, T = TILE + R - 1;

// Threads, and blocks at a time on a processor: if that is left open, the compiler spills registers to fit more. float with int
// needs 128 registers, double or long long more.
const int BLOCK = 128, AT_LEAST = sizeof(real) + sizeof(index) == 8 ? 4 : 2;

// result = (matrix @ values)^T
template <int A, int B, int C>
__device__ void mdl_multiply(const real (&matrix)[A][B], const real (&values)[B][C], real (&result)[C][A]) {
#pragma unroll
  for (int j = 0; j < C; j++)
#pragma unroll
    for (int i = 0; i < A; i++) {
      result[j][i] = 0;
#pragma unroll
      for (int k = 0; k < B; k++)
        if (matrix[i][k] != real(0)) result[j][i] += matrix[i][k] * values[k][j];
    }
}

// result = matrix @ values @ matrix^T
template <int A, int B>
__device__ void mdl_both_axes(const real (&matrix)[A][B], const real (&values)[B][B], real (&result)[A][A]) {
  real half[B][A];
  mdl_multiply(matrix, values, half);
  mdl_multiply(matrix, half, result);
}

// values[g, (p,q), (n,i,j), k] = (matrix @ d @ matrix^T)[p,q], where d is what lies under tile (i,j) of image n: SIZE x SIZE blocks
// of pixels from block (i * TILE, j * TILE) on. The first block begins `top` rows and `left` columns before the image, among zeros.
template <int SIZE>
__device__ void mdl_cut(const real (&matrix)[T][SIZE], const real* __restrict__ x, real* __restrict__ values, index images,
                        index height, index width, index groups, index group, index tiles_h, index tiles_w, index stride_h,
                        index stride_w, index top, index left) {
  const index depth = stride_h * stride_w * group, channels = groups * group, tiles = images * tiles_h * tiles_w;
  const index threads = (index)gridDim.x * blockDim.x;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < tiles * groups * depth; thread += threads) {
    const index k = thread % depth, g = thread / depth % groups, tile = thread / depth / groups;
    const index c = k % group, inner_w = k / group % stride_w, inner_h = k / group / stride_w;
    const index n = tile / tiles_w / tiles_h;
    const index row = tile / tiles_w % tiles_h * TILE * stride_h + inner_h - top;
    const index column = tile % tiles_w * TILE * stride_w + inner_w - left;
    const real* source = x + n * height * width * channels + g * group + c;
    real pixels[SIZE][SIZE], result[T][T];
#pragma unroll
    for (int i = 0; i < SIZE; i++)
#pragma unroll
      for (int j = 0; j < SIZE; j++) {
        const index h = row + i * stride_h, w = column + j * stride_w;
        pixels[i][j] = h >= 0 && h < height && w >= 0 && w < width ? source[(h * width + w) * channels] : real(0);
      }
    mdl_both_axes(matrix, pixels, result);
    real* target = values + (g * T * T * tiles + tile) * depth + k;
#pragma unroll
    for (int p = 0; p < T * T; p++) target[p * tiles * depth] = result[p / T][p % T];
  }
}

// V = BT d B
extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_winograd_input(const real* __restrict__ x, real* __restrict__ values, long long images, long long height,
                       long long width, long long groups, long long group, long long tiles_h, long long tiles_w,
                       long long stride_h, long long stride_w, long long top, long long left) {
  const real BT[T][T] = MDL_BT;
  mdl_cut<T>(BT, x, values, images, height, width, groups, group, tiles_h, tiles_w, stride_h, stride_w, top, left);
}

// gM = A gy AT
extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_winograd_upstream(const real* __restrict__ gy, real* __restrict__ values, long long images, long long height,
                          long long width, long long groups, long long group, long long tiles_h, long long tiles_w) {
  const real A[T][TILE] = MDL_A;
  mdl_cut<TILE>(A, gy, values, images, height, width, groups, group, tiles_h, tiles_w, 1, 1, 0, 0);
}

// y[n, i * TILE + p, j * TILE + q, g * group + o] = (AT M A)[p,q] + bias, for the tile (i,j) of image n; and its ReLU
extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_winograd_output(const real* __restrict__ values, const real* __restrict__ bias, real* __restrict__ y, long long images,
                        long long height, long long width, long long groups, long long group, long long tiles_h,
                        long long tiles_w, long long relu) {
  const real AT[TILE][T] = MDL_AT;
  const index filters = groups * group, tiles = images * tiles_h * tiles_w, threads = (index)gridDim.x * blockDim.x;
  const index across = tiles_w, down = tiles_h, rows = height, columns = width, each = group;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < tiles * filters; thread += threads) {
    const index filter = thread % filters, tile = thread / filters, g = filter / each, o = filter % each;
    const index n = tile / across / down, row = tile / across % down * TILE, column = tile % across * TILE;
    const real* source = values + (g * T * T * tiles + tile) * each + o;
    const real b = bias[filter];
    real all[T][T], result[TILE][TILE];
#pragma unroll
    for (int p = 0; p < T * T; p++) all[p / T][p % T] = source[p * tiles * each];
    mdl_both_axes(AT, all, result);
    real* target = y + ((n * rows + row) * columns + column) * filters + filter;
#pragma unroll
    for (int i = 0; i < TILE; i++)
#pragma unroll
      for (int j = 0; j < TILE; j++) {
        const real value = result[i][j] + b;
        if (row + i < rows && column + j < columns)
          target[(i * columns + j) * filters] = relu && value <= real(0) ? real(0) : value;
      }
  }
}

// How the filters w (groups * filters, kernel_h, kernel_w, group) and U (groups, T * T, filters, depth) belong together: thread
// by thread the filter's number in U, its R x R elements in w, and which of those are not beyond the kernel's end.
struct mdl_filter {
  index matrix, first, to_next_row, to_next_column;  // of U's first value, of w's; in blocks
  index rows, columns;                               // inside of the kernel

  __device__ bool inside(int u, int v) const { return u < rows && v < columns; }
  __device__ index element(int u, int v) const { return first + u * to_next_row + v * to_next_column; }
};

__device__ mdl_filter mdl_filter_of(index thread, index filters, index kernel_h, index kernel_w, index group, index stride_h,
                                    index stride_w) {
  const index depth = stride_h * stride_w * group, k = thread % depth, filter = thread / depth;
  const index c = k % group, inner_w = k / group % stride_w, inner_h = k / group / stride_w;
  return {(filter / filters * T * T * filters + filter % filters) * depth + k,
          ((filter * kernel_h + inner_h) * kernel_w + inner_w) * group + c,
          stride_h * kernel_w * group,
          stride_w * group,
          (kernel_h - inner_h + stride_h - 1) / stride_h,
          (kernel_w - inner_w + stride_w - 1) / stride_w};
}

// U = G w GT; of filters that are turned by 180 degrees, if `turned`
extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_winograd_filters(const real* __restrict__ w, real* __restrict__ values, long long groups, long long filters,
                         long long kernel_h, long long kernel_w, long long group, long long stride_h, long long stride_w,
                         long long turned) {
  const real G[T][R] = MDL_G;
  const index depth = stride_h * stride_w * group, step = filters * depth, threads = (index)gridDim.x * blockDim.x;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < groups * step; thread += threads) {
    const mdl_filter filter = mdl_filter_of(thread, filters, kernel_h, kernel_w, group, stride_h, stride_w);
    real elements[R][R], result[T][T];
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
      for (int j = 0; j < R; j++) {
        const int u = turned ? R - 1 - i : i, v = turned ? R - 1 - j : j;
        elements[i][j] = filter.inside(u, v) ? w[filter.element(u, v)] : real(0);
      }
    mdl_both_axes(G, elements, result);
#pragma unroll
    for (int p = 0; p < T * T; p++) values[filter.matrix + p * step] = result[p / T][p % T];
  }
}

// gw = GT gU G
extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_winograd_filter_gradient(const real* __restrict__ values, real* __restrict__ gw, long long groups, long long filters,
                                 long long kernel_h, long long kernel_w, long long group, long long stride_h,
                                 long long stride_w) {
  const real GT[R][T] = MDL_GT;
  const index depth = stride_h * stride_w * group, step = filters * depth, threads = (index)gridDim.x * blockDim.x;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < groups * step; thread += threads) {
    const mdl_filter filter = mdl_filter_of(thread, filters, kernel_h, kernel_w, group, stride_h, stride_w);
    real all[T][T], result[R][R];
#pragma unroll
    for (int p = 0; p < T * T; p++) all[p / T][p % T] = values[filter.matrix + p * step];
    mdl_both_axes(GT, all, result);
#pragma unroll
    for (int u = 0; u < R; u++)
#pragma unroll
      for (int v = 0; v < R; v++)
        if (filter.inside(u, v)) gw[filter.element(u, v)] = result[u][v];
  }
}
