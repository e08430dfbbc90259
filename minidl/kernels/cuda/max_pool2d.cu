// 2-d max pooling, channels last; the mathematics is in minidl/ops/max_pool2d.py.
//
// A block does whole rows of pixels, of the output forward and of the input backward, so that what depends on the row alone is
// found once. A thread does a pack at a time, 16 bytes of neighbouring channels, or one channel if they cannot be cut so.

const int BLOCK = 128;
const int AT_LEAST = 4;  // blocks at a time on a processor; if that is left open, the compiler spills registers to fit more
const int WIDE = 16 / sizeof(real);
const int TAPS = 3;  // of a window's row, loaded before the first is compared

template <class T, int size>
struct alignas(sizeof(T) * size) mdl_pack {
  T at[size];
};

// Of an image or its pooled output: rows, pixels of a row, channels.
struct mdl_plane {
  int h, w, c;
};

// Along one axis: how many elements a window has, their distance, the distance of windows, and pixels before the image.
struct mdl_axis {
  int kernel, stride, padding, dilation;

  // A window starts at a pixel of the image, or before it. Its elements that meet pixels 0 ... size - 1 are first ... stop - 1.
  __device__ int start(int window) const { return window * stride - padding; }
  __device__ int first(int start) const { return start < 0 ? (dilation - 1 - start) / dilation : 0; }
  __device__ int stop(int start, int size) const {
    if (start + (kernel - 1) * dilation < size) return kernel;
    return (size - 1 - start) / dilation + 1;
  }

  // Which element of the window meets this pixel, or -1
  __device__ int element(int pixel, int window) const {
    const int distance = pixel - start(window);
    if (dilation == 1) return distance;
    return distance % dilation ? -1 : distance / dilation;
  }
};

// Can arrays with this many channels be cut into packs? They must begin at multiples of a pack's size. New ones always do.
__device__ bool mdl_wide(long long channels, const real* array, const unsigned char* winner) {
  return channels % WIDE == 0 && (unsigned long long)array % 16 == 0 && (unsigned long long)winner % WIDE == 0;
}

// y = the largest of the window's pixels; winner = u * KW + v of the first of them, of the last NaN if there is one, and of the
// first pixel in the image (or after the padding) if there is nothing over -infinity
template <int size, class W>
__device__ void mdl_pool(const real* __restrict__ x, real* __restrict__ y, W* __restrict__ winner, index images, mdl_plane in,
                         mdl_plane out, mdl_axis vertical, mdl_axis horizontal) {
  typedef mdl_pack<real, size> reals;
  typedef mdl_pack<W, size> winners;
  const int packs = in.c / size, step_w = BLOCK / packs, step_c = BLOCK % packs;
  const index row = (index)in.w * in.c;
  for (index r = blockIdx.x; r < images * out.h; r += gridDim.x) {
    const index first_row = r / out.h * in.h;  // of the image, among the rows of all images
    const int top = vertical.start(r % out.h), first_u = vertical.first(top), stop_u = vertical.stop(top, in.h);
    int j = threadIdx.x / packs, c = threadIdx.x % packs;
    for (index p = threadIdx.x; p < (index)out.w * packs; p += BLOCK) {
      const int left = horizontal.start(j), first_v = horizontal.first(left), stop_v = horizontal.stop(left, in.w);
      reals best;
      winners best_at;
      for (int k = 0; k < size; k++) best.at[k] = real(-1) / real(0), best_at.at[k] = first_u * horizontal.kernel + first_v;
      for (int u = first_u; u < stop_u; u++) {
        const index corner = (first_row + top + u * vertical.dilation) * row + (index)left * in.c + c * size;
        for (int v = first_v; v < stop_v; v += TAPS) {
          reals tap[TAPS];
#pragma unroll
          for (int t = 0; t < TAPS; t++)
            tap[t] = *(const reals*)(x + (corner + (index)min(v + t, stop_v - 1) * horizontal.dilation * in.c));
#pragma unroll
          for (int t = 0; t < TAPS; t++) {
            if (v + t >= stop_v) continue;
            for (int k = 0; k < size; k++) {
              const real value = tap[t].at[k];
              if (value > best.at[k] || value != value) best.at[k] = value, best_at.at[k] = u * horizontal.kernel + v + t;
            }
          }
        }
      }
      const index place = r * out.w * out.c + p * size;
      *(reals*)(y + place) = best;
      *(winners*)(winner + place) = best_at;
      j += step_w, c += step_c;  // BLOCK packs further; a division takes longer
      if (c >= packs) c -= packs, j++;
    }
  }
}

// gx[h,w] = sum of gy[i,j] over the windows (i,j) whose winner is (h,w). Every pixel gathers what belongs to it, from the last
// window that holds it to the first, so that the order of the additions is always the same: that of the plain function.
template <int size, class W>
__device__ void mdl_gather(const real* __restrict__ gy, const W* __restrict__ winner, real* __restrict__ gx, index images,
                           mdl_plane in, mdl_plane out, mdl_axis vertical, mdl_axis horizontal) {
  typedef mdl_pack<real, size> reals;
  typedef mdl_pack<W, size> winners;
  const int packs = in.c / size, step_w = BLOCK / packs, step_c = BLOCK % packs;
  const int span_h = (vertical.kernel - 1) * vertical.dilation, span_w = (horizontal.kernel - 1) * horizontal.dilation;
  for (index r = blockIdx.x; r < images * in.h; r += gridDim.x) {
    const int h = r % in.h, last_i = min((h + vertical.padding) / vertical.stride, out.h - 1);
    int w = threadIdx.x / packs, c = threadIdx.x % packs;
    for (index p = threadIdx.x; p < (index)in.w * packs; p += BLOCK) {
      const int last_j = min((w + horizontal.padding) / horizontal.stride, out.w - 1);
      reals sum;
      for (int k = 0; k < size; k++) sum.at[k] = 0;
      for (int i = last_i; i >= 0 && h - vertical.start(i) <= span_h; i--) {
        const int u = vertical.element(h, i);
        if (u < 0) continue;
        for (int j = last_j; j >= 0 && w - horizontal.start(j) <= span_w; j--) {
          const int v = horizontal.element(w, j);
          if (v < 0) continue;
          const index place = ((r / in.h * out.h + i) * out.w + j) * out.c + c * size;
          const reals gradient = *(const reals*)(gy + place);
          const winners won = *(const winners*)(winner + place);
          for (int k = 0; k < size; k++) sum.at[k] += won.at[k] == u * horizontal.kernel + v ? gradient.at[k] : real(0);
        }
      }
      *(reals*)(gx + (r * in.w * in.c + p * size)) = sum;
      w += step_w, c += step_c;
      if (c >= packs) c -= packs, w++;
    }
  }
}

// The kernels: one for each type of the winners' numbers. x and gx are (images, h, w, c), y, gy and winner (images, oh, ow, c);
// then the window's size, stride, padding and dilation, each vertical and horizontal.
#define MDL_SIZES                                                                                      \
  long long images, long long h, long long w, long long c, long long oh, long long ow, long long kh,   \
      long long kw, long long sh, long long sw, long long ph, long long pw, long long dh, long long dw
#define MDL_GEOMETRY                                                                                   \
  (index) images, mdl_plane{(int)h, (int)w, (int)c}, mdl_plane{(int)oh, (int)ow, (int)c},              \
      mdl_axis{(int)kh, (int)sh, (int)ph, (int)dh}, mdl_axis{(int)kw, (int)sw, (int)pw, (int)dw}

extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_max_pool2d_forward_uint8(const real* __restrict__ x, real* __restrict__ y, unsigned char* __restrict__ winner,
                                 MDL_SIZES) {
  if (mdl_wide(c, x, winner))
    mdl_pool<WIDE>(x, y, winner, MDL_GEOMETRY);
  else
    mdl_pool<1>(x, y, winner, MDL_GEOMETRY);
}

extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_max_pool2d_forward_int32(const real* __restrict__ x, real* __restrict__ y, int* __restrict__ winner, MDL_SIZES) {
  mdl_pool<1>(x, y, winner, MDL_GEOMETRY);
}

extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_max_pool2d_backward_uint8(const real* __restrict__ gy, const unsigned char* __restrict__ winner, real* __restrict__ gx,
                                  MDL_SIZES) {
  if (mdl_wide(c, gy, winner))
    mdl_gather<WIDE>(gy, winner, gx, MDL_GEOMETRY);
  else
    mdl_gather<1>(gy, winner, gx, MDL_GEOMETRY);
}

extern "C" __global__ void __launch_bounds__(BLOCK, AT_LEAST)
    mdl_max_pool2d_backward_int32(const real* __restrict__ gy, const int* __restrict__ winner, real* __restrict__ gx,
                                  MDL_SIZES) {
  mdl_gather<1>(gy, winner, gx, MDL_GEOMETRY);
}
