// Adding up where indices repeat, in their order, without atomics; see add_at.py.

// x[places[r], c] += values[order[r], c] for all r, c. `places` is sorted, and `order` says where each of them came from. The
// thread of a place's first r adds up the rest of that place's too.
extern "C" __global__ void mdl_add_at(real* __restrict__ x, const real* __restrict__ values, const long long* __restrict__ order,
                                      const long long* __restrict__ places, long long number, long long columns) {
  const index height = number, width = columns, threads = (index)gridDim.x * blockDim.x;
  for (index thread = (index)blockIdx.x * blockDim.x + threadIdx.x; thread < height * width; thread += threads) {
    const index first = thread / width, column = thread % width;
    const long long place = places[first];
    if (first > 0 && places[first - 1] == place) continue;
    real sum = x[place * width + column];
    for (index r = first; r < height && places[r] == place; r++) sum += values[order[r] * width + column];
    x[place * width + column] = sum;
  }
}
