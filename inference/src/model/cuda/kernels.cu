// The row kernels and the attention of the encoder, in bf16 or fp16 with fp32 arithmetic. Compiled at run time for the GPU
// that is there: nothing of CUDA is needed to build Undertone. Compute capability 8.0 and newer.
//
// Given on the command line: HEAD, the width of an attention head (a multiple of 16, at most 128), and HALF, 1 for fp16.
//
// Matrices are row-major without gaps. A `pair` is two neighbouring numbers of a row; a `quad` is four.

typedef unsigned int pair;
typedef uint2 quad;

__device__ __forceinline__ pair pack(float low, float high) {
  pair result;
#if HALF
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#else
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#endif
  return result;
}

__device__ __forceinline__ float2 unpack(pair x) {
#if HALF
  float2 result;
  asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }" : "=f"(result.x), "=f"(result.y) : "r"(x));
  return result;
#else
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
#endif
}

// d += a b: [16, 8] += [16, 16] [16, 8], spread over a warp as PTX's mma.m16n8k16 says.
__device__ __forceinline__ void multiply(float (&d)[4], const pair (&a)[4], pair b0, pair b1) {
#if HALF
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- attention ----

// Attention within each sequence of at most KEYS tokens: one block a sequence and head, one warp for 16 queries, all scores
// in registers. qkv is [tokens, 3 hidden], out [tokens, hidden], bounds [sequences + 1].
template <int KEYS>
__device__ __forceinline__ void attend(const pair* qkv, const int* bounds, pair* out, int hidden, float scale) {
  constexpr int WIDTH = HEAD / 2;        // of a head, in pairs
  constexpr int STRIDE = HEAD / 2 + 4;   // of a row in shared memory, so that eight rows lie in different banks
  __shared__ __align__(16) pair values[KEYS * STRIDE];

  const float least = __int_as_float(0xff800000);  // minus infinity
  const int start = bounds[blockIdx.x], length = bounds[blockIdx.x + 1] - start;
  const int row = 3 * hidden / 2;        // of qkv, in pairs
  const pair* query = qkv + (size_t)start * row + blockIdx.y * WIDTH;
  const pair* key = query + hidden / 2;
  const pair* value = query + hidden;

  const int filled = (length + 15) / 16 * 16;
  for (int i = threadIdx.x; i < filled * (WIDTH / 4); i += blockDim.x) {
    const int token = i / (WIDTH / 4), part = i % (WIDTH / 4) * 4;
    uint4 four = make_uint4(0, 0, 0, 0);
    if (token < length) four = *(const uint4*)(value + (size_t)token * row + part);
    *(uint4*)(values + token * STRIDE + part) = four;
  }
  __syncthreads();

  const int lane = threadIdx.x % 32, group = lane / 4, column = lane % 4;
  const int first = threadIdx.x / 32 * 16;
  if (first >= length) return;
  const int upper = first + group, lower = upper + 8;

  pair q[HEAD / 16][4];
  {
    const pair* a = query + (size_t)min(upper, length - 1) * row + column;
    const pair* b = query + (size_t)min(lower, length - 1) * row + column;
#pragma unroll
    for (int k = 0; k < HEAD / 16; k++) {
      q[k][0] = a[8 * k];
      q[k][1] = b[8 * k];
      q[k][2] = a[8 * k + 4];
      q[k][3] = b[8 * k + 4];
    }
  }

  float score[KEYS / 8][4];
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) {
    score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0;
    if (8 * n < length) {
      const pair* k = key + (size_t)min(8 * n + group, length - 1) * row + column;
#pragma unroll
      for (int i = 0; i < HEAD / 16; i++) multiply(score[n], q[i], k[8 * i], k[8 * i + 4]);
    }
    const int at = 8 * n + 2 * column;
    if (at >= length) score[n][0] = score[n][2] = least;
    if (at + 1 >= length) score[n][1] = score[n][3] = least;
  }

  // Softmax of two rows: four lanes hold a row. There is at least one key, so no maximum is infinite.
  float most[2] = {least, least}, sum[2] = {0, 0};
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) {
    most[0] = fmaxf(most[0], fmaxf(score[n][0], score[n][1]));
    most[1] = fmaxf(most[1], fmaxf(score[n][2], score[n][3]));
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 1));
    most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 2));
  }
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      score[n][i] = exp2f((score[n][i] - most[i / 2]) * scale);
      sum[i / 2] += score[n][i];
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 1);
    sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
  }

  float mixed[HEAD / 8][4] = {};
#pragma unroll
  for (int j = 0; j < KEYS / 16; j++) {
    if (16 * j >= length) break;
    const pair weights[4] = {pack(score[2 * j][0], score[2 * j][1]), pack(score[2 * j][2], score[2 * j][3]),
                             pack(score[2 * j + 1][0], score[2 * j + 1][1]), pack(score[2 * j + 1][2], score[2 * j + 1][3])};
    // Lanes 0 to 15 name the rows of one tile of eight columns, the others those of the next.
    const pair* tile = values + (16 * j + lane % 16) * STRIDE + lane / 16 * 4;
#pragma unroll
    for (int n = 0; n < HEAD / 8; n += 2) {
      pair b[4];
      const unsigned address = (unsigned)__cvta_generic_to_shared(tile + 4 * n);
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                   : "r"(address));
      multiply(mixed[n], weights, b[0], b[1]);
      multiply(mixed[n + 1], weights, b[2], b[3]);
    }
  }

  pair* to = out + (size_t)start * (hidden / 2) + blockIdx.y * WIDTH + column;
  const float a = 1 / sum[0], b = 1 / sum[1];
#pragma unroll
  for (int n = 0; n < HEAD / 8; n++) {
    if (upper < length) to[(size_t)upper * (hidden / 2) + 4 * n] = pack(mixed[n][0] * a, mixed[n][1] * a);
    if (lower < length) to[(size_t)lower * (hidden / 2) + 4 * n] = pack(mixed[n][2] * b, mixed[n][3] * b);
  }
}

// `scale` is that of the scores times log2(e).
#define ATTEND(KEYS)                                                                                            \
  extern "C" __global__ void __launch_bounds__(KEYS * 2) attend_##KEYS(                                         \
      const pair* qkv, const int* bounds, pair* out, int hidden, float scale) {                                 \
    attend<KEYS>(qkv, bounds, out, hidden, scale);                                                              \
  }
ATTEND(32)
ATTEND(64)
ATTEND(128)

// ---- rows ----

__device__ __forceinline__ float sum_of_warp(float x) {
#pragma unroll
  for (int other = 16; other; other /= 2) x += __shfl_xor_sync(0xffffffffu, x, other);
  return x;
}

// out = layer norm of a + b, by one warp; a, b and out are one row of QUADS * 128 numbers.
template <int QUADS>
__device__ __forceinline__ void norm_row(
    const quad* a, const quad* b, const quad* gain, const quad* bias, quad* out, float epsilon) {
  const int lane = threadIdx.x % 32;
  constexpr int WIDTH = QUADS * 128;
  float x[QUADS][4], sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < QUADS; i++) {
    const quad p = a[32 * i + lane], q = b[32 * i + lane];
    const float2 p0 = unpack(p.x), p1 = unpack(p.y), q0 = unpack(q.x), q1 = unpack(q.y);
    x[i][0] = p0.x + q0.x;
    x[i][1] = p0.y + q0.y;
    x[i][2] = p1.x + q1.x;
    x[i][3] = p1.y + q1.y;
    sum += x[i][0] + x[i][1] + x[i][2] + x[i][3];
  }
  const float mean = sum_of_warp(sum) / WIDTH;
#pragma unroll
  for (int i = 0; i < QUADS; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      x[i][j] -= mean;
      squares += x[i][j] * x[i][j];
    }
  const float scale = rsqrtf(sum_of_warp(squares) / WIDTH + epsilon);
#pragma unroll
  for (int i = 0; i < QUADS; i++) {
    const quad g = gain[32 * i + lane], c = bias[32 * i + lane];
    const float2 g0 = unpack(g.x), g1 = unpack(g.y), c0 = unpack(c.x), c1 = unpack(c.y);
    out[32 * i + lane] = make_uint2(pack(x[i][0] * scale * g0.x + c0.x, x[i][1] * scale * g0.y + c0.y),
                                    pack(x[i][2] * scale * g1.x + c1.x, x[i][3] * scale * g1.y + c1.y));
  }
}

// What each warp of a grid does for the row of its number. All rows have QUADS * 128 numbers.
#define ROWS(QUADS)                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) add_norm_##QUADS(                                           \
      const quad* a, const quad* b, const quad* gain, const quad* bias, quad* out, int rows, float epsilon) {   \
    const int row = (blockIdx.x * 256 + threadIdx.x) / 32;                                                      \
    const size_t at = (size_t)row * (QUADS * 32);                                                               \
    if (row < rows) norm_row<QUADS>(a + at, b + at, gain, bias, out + at, epsilon);                             \
  }                                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) embed_norm_##QUADS(                                         \
      const int* ids, const int* positions, const quad* words, const quad* places, const quad* gain,            \
      const quad* bias, quad* out, int rows, float epsilon) {                                                   \
    const int row = (blockIdx.x * 256 + threadIdx.x) / 32;                                                      \
    if (row >= rows) return;                                                                                    \
    norm_row<QUADS>(words + (size_t)ids[row] * (QUADS * 32), places + (size_t)positions[row] * (QUADS * 32),    \
                    gain, bias, out + (size_t)row * (QUADS * 32), epsilon);                                     \
  }
ROWS(1)
ROWS(2)
ROWS(3)
ROWS(4)
ROWS(5)
ROWS(6)
ROWS(7)
ROWS(8)

// The mean (or the first) of each sequence's rows, in the order in which the sequences were given: x is [tokens, width],
// out [sequences, width] in fp32. One block a sequence.
extern "C" __global__ void __launch_bounds__(256) pool(
    const pair* x, const int* bounds, const int* places, float2* out, int width, int first_only) {
  const int place = places[blockIdx.x], start = bounds[place];
  const int end = first_only ? start + 1 : bounds[place + 1];
  for (int column = threadIdx.x; column < width / 2; column += blockDim.x) {
    float2 sum = make_float2(0, 0);
    for (int row = start; row < end; row++) {
      const float2 more = unpack(x[(size_t)row * (width / 2) + column]);
      sum.x += more.x;
      sum.y += more.y;
    }
    out[(size_t)blockIdx.x * (width / 2) + column] = make_float2(sum.x / (end - start), sum.y / (end - start));
  }
}
