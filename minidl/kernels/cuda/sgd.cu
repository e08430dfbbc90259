// The updates of stochastic gradient descent, one pass over memory; the mathematics is in minidl/optim/sgd.py.
//
// In place on w and v. The time is that of the memory, whatever the options: one that is off costs a product with 1, which has no
// rounding. A thread takes BATCH elements at a time and loads all of them before it stores the first. Nothing is done where `found`
// leads to a number that is not 0; it may be null.

const int BATCH = 4;

// step(w, g, v) for every element; v may be null, if the step does without.
template <class Step>
__device__ void mdl_each(real* __restrict__ w, const real* __restrict__ g, real* __restrict__ v, const int* __restrict__ found,
                         index count, const Step& step) {
  if (found && *found != 0) return;
  const index threads = (index)gridDim.x * blockDim.x;
  for (index first = (index)blockIdx.x * blockDim.x + threadIdx.x; first < count; first += BATCH * threads) {
    real weight[BATCH], gradient[BATCH], velocity[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const index i = first + j * threads;
      const bool valid = i < count;
      weight[j] = valid ? w[i] : real(0);
      gradient[j] = valid ? g[i] : real(0);
      velocity[j] = valid && v ? v[i] : real(0);
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const index i = first + j * threads;
      if (i >= count) continue;
      step.take(weight[j], gradient[j], velocity[j]);
      w[i] = weight[j];
      if (v) v[i] = velocity[j];
    }
  }
}

// d = weight_decay w + sign g. Without decay w does not count, not even where it is infinite or NaN.
struct mdl_direction {
  double weight_decay, sign;

  __device__ real at(real w, real g) const {
    const real towards = real(sign) * g;
    return weight_decay != 0 ? real(weight_decay) * w + towards : towards;
  }
};

// Both rules without momentum: w <- w - lr d
struct mdl_descent {
  mdl_direction d;
  double lr;

  __device__ void take(real& w, real g, real&) const { w -= real(lr) * d.at(w, g); }
};

// v <- momentum v + fresh d, where fresh = 1 - dampening;  w <- w - lr v, or with Nesterov w <- w - lr (fresh d + momentum v)
struct mdl_pytorch_rule {
  mdl_direction d;
  double lr, momentum, fresh;
  bool nesterov;

  __device__ void take(real& w, real g, real& v) const {
    const real direction = real(fresh) * d.at(w, g);
    v = real(momentum) * v + direction;
    w -= real(lr) * (nesterov ? direction + real(momentum) * v : v);
  }
};

// v <- momentum v - lr d;  w <- w + v
struct mdl_2012_rule {
  mdl_direction d;
  double lr, momentum;

  __device__ void take(real& w, real g, real& v) const {
    v = real(momentum) * v - real(lr) * d.at(w, g);
    w += v;
  }
};

extern "C" __global__ void mdl_sgd_descent(real* __restrict__ w, const real* __restrict__ g, const int* __restrict__ found,
                                           long long size, double weight_decay, double sign, double lr) {
  const mdl_descent step = {{weight_decay, sign}, lr};
  mdl_each(w, g, 0, found, size, step);
}

extern "C" __global__ void mdl_sgd_update(real* __restrict__ w, const real* __restrict__ g, real* __restrict__ v,
                                          const int* __restrict__ found, long long size, double weight_decay, double sign,
                                          double lr, double momentum, double fresh, long long nesterov) {
  const mdl_pytorch_rule step = {{weight_decay, sign}, lr, momentum, fresh, nesterov != 0};
  mdl_each(w, g, v, found, size, step);
}

extern "C" __global__ void mdl_sgd_update_2012(real* __restrict__ w, const real* __restrict__ g, real* __restrict__ v,
                                               const int* __restrict__ found, long long size, double weight_decay, double lr,
                                               double momentum) {
  const mdl_2012_rule step = {{weight_decay, 1}, lr, momentum};
  mdl_each(w, g, v, found, size, step);
}
