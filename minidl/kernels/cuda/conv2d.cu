// im2col and col2im; the mathematics is in minidl/ops/conv2d.py.
//
// A thread goes along a line of pixels, for one place in the patch or one channel of the image: what takes divisions to find out
// (which image, row, group, tap, channel) it finds out once per line. Neighbouring threads take neighbouring channels, so at each
// step along the line they read and write runs of memory. A thread loads BATCH values before it uses the first: otherwise too few
// loads are on their way to keep the memory busy.

const int BATCH = 4;

// How windows lie on the images: out_h x out_w of them, of kernel_h x kernel_w taps, on `images` images. The patches under them
// are (groups, images * out_h * out_w, length), where each group has `group` of the channels and a patch's kernel_h * kernel_w *
// group numbers may be followed by zeros, up to `length`.
#define MDL_WINDOWS                                                                                                         \
  long long images, long long height, long long width, long long channels, long long out_h, long long out_w,               \
      long long kernel_h, long long kernel_w, long long group, long long stride_h, long long stride_w, long long top,      \
      long long left, long long dilation_h, long long dilation_w, long long length

struct mdl_windows {
  index images, height, width, channels, out_h, out_w, kernel_h, kernel_w, group;
  index stride_h, stride_w, top, left, dilation_h, dilation_w, length;
};

#define MDL_AS_INDEX                                                                                                        \
  {                                                                                                                        \
    (index)images, (index)height, (index)width, (index)channels, (index)out_h, (index)out_w, (index)kernel_h,              \
        (index)kernel_w, (index)group, (index)stride_h, (index)stride_w, (index)top, (index)left, (index)dilation_h,       \
        (index)dilation_w, (index)length                                                                                   \
  }

// col[g, (n,i,j), (u,v,c)] = x[n, i*stride + u*dilation - top, j*stride + v*dilation - left, g*group + c]     (0 outside)
extern "C" __global__ void mdl_im2col(const real* __restrict__ x, real* __restrict__ col, MDL_WINDOWS) {
  const mdl_windows s = MDL_AS_INDEX;
  const index patch = s.kernel_h * s.kernel_w * s.group, places = s.length * (s.channels / s.group);  // of one, of all groups
  const index lines = s.images * s.out_h, threads = (index)gridDim.x * blockDim.x;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < lines * places; thread += threads) {
    const index line = thread / places, g = thread % places / s.length, place = thread % places % s.length;
    const index c = place % s.group, v = place / s.group % s.kernel_w, u = place / s.group / s.kernel_w;
    const index n = line / s.out_h, row = line % s.out_h * s.stride_h + u * s.dilation_h - s.top;
    const index column = v * s.dilation_w - s.left;
    const bool outside = row < 0 || row >= s.height || place >= patch;  // then nothing is read from `source`
    const real* source = x + (n * s.height + (outside ? 0 : row)) * s.width * s.channels + g * s.group + c;
    real* target = col + (g * lines + line) * s.out_w * s.length + place;
    for (index j = 0; j < s.out_w; j += BATCH) {
      real value[BATCH];
#pragma unroll
      for (int k = 0; k < BATCH; k++) {
        const index pixel = column + (j + k) * s.stride_w;
        value[k] = outside || pixel < 0 || pixel >= s.width ? real(0) : source[pixel * s.channels];
      }
#pragma unroll
      for (int k = 0; k < BATCH; k++)
        if (j + k < s.out_w) target[(j + k) * s.length] = value[k];
    }
  }
}

__device__ index mdl_common_divisor(index a, index b) {
  while (b != 0) {
    const index rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// The first tap u that some window could have put on this position (a pixel's, counted from the padding's edge): position -
// u*dilation is a multiple of the stride. `taps` if there is none.
__device__ index mdl_first_tap(index position, index stride, index dilation, index taps) {
  index u = 0;
  while (u < taps && (position - u * dilation) % stride != 0) u++;
  return u;
}

// gx[n,h,w,c] = sum of gcol over all patches that this pixel was copied into, in the order of their taps:
//     over u, v, i, j with  i*stride + u*dilation - top = h  and  j*stride + v*dilation - left = w
// From one such tap to the next it is stride/d taps forward and dilation/d windows back, d = gcd(stride, dilation).
extern "C" __global__ void mdl_col2im(const real* __restrict__ gcol, real* __restrict__ gx, MDL_WINDOWS) {
  const mdl_windows s = MDL_AS_INDEX;
  const index threads = (index)gridDim.x * blockDim.x;
  const index common_h = mdl_common_divisor(s.stride_h, s.dilation_h), common_w = mdl_common_divisor(s.stride_w, s.dilation_w);
  const index forward_h = s.stride_h / common_h, back_h = s.dilation_h / common_h;
  const index forward_w = s.stride_w / common_w, back_w = s.dilation_w / common_w;
  const index count = s.images * s.height * s.channels;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < count; thread += threads) {
    const index line = thread / s.channels, channel = thread % s.channels, g = channel / s.group, c = channel % s.group;
    const index n = line / s.height, down = line % s.height + s.top;
    const index first_u = mdl_first_tap(down, s.stride_h, s.dilation_h, s.kernel_h);
    const index first_i = (down - first_u * s.dilation_h) / s.stride_h;
    const real* source = gcol + (g * s.images + n) * s.out_h * s.out_w * s.length + c;
    real* target = gx + line * s.width * s.channels + channel;
    for (index w = 0; w < s.width; w++) {
      const index across = w + s.left, first_v = mdl_first_tap(across, s.stride_w, s.dilation_w, s.kernel_w);
      const index first_j = (across - first_v * s.dilation_w) / s.stride_w;
      real sum = 0;
      for (index u = first_u, i = first_i; u < s.kernel_h && i >= 0; u += forward_h, i -= back_h) {
        if (i >= s.out_h) continue;
        const real* row = source + i * s.out_w * s.length + u * s.kernel_w * s.group;
        for (index v = first_v, j = first_j; v < s.kernel_w && j >= 0; v += BATCH * forward_w, j -= BATCH * back_w) {
          real value[BATCH];
#pragma unroll
          for (int k = 0; k < BATCH; k++) {
            const index tap = v + k * forward_w, pixel = j - k * back_w;
            const bool valid = tap < s.kernel_w && pixel >= 0 && pixel < s.out_w;
            value[k] = valid ? row[pixel * s.length + tap * s.group] : real(0);
          }
#pragma unroll
          for (int k = 0; k < BATCH; k++) sum += value[k];
        }
      }
      target[w * s.channels] = sum;
    }
  }
}
