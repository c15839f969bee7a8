// A transformer block, post-norm with ReZero: x = LN(x + a·Attention(x)), x = LN(x + a·FFN(x)).

/// Exact GELU.
DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

/// Exact GELU of rows of shared memory.
DEVICE void gelu(float* y, int stride, int width, Tiles tiles) {
    const int quarters = width / 4;
#pragma unroll 1
    for (int at = thread(); at < 16 * (tiles.end - tiles.first) * quarters; at += threads()) {
        float4* place = (float4*)(y + (16 * tiles.first + at / quarters) * stride + at % quarters * 4);
        const float4 x = *place;
        *place = make_float4(gelu(x.x), gelu(x.y), gelu(x.z), gelu(x.w));
    }
}

/// Layer norm of rows of shared memory over their first `width` features, at most MOST. A warp takes a row.
template <int MOST>
DEVICE void norm(float* x, int stride, int width, const float* weight, const float* bias, Tiles tiles) {
    const int own = lane();
    float weights[(MOST + 31) / 32], biases[(MOST + 31) / 32];
#pragma unroll
    for (int i = 0; i < (MOST + 31) / 32; i++) {
        weights[i] = own + 32 * i < width ? read_only(weight + own + 32 * i) : 0.0f;
        biases[i] = own + 32 * i < width ? read_only(bias + own + 32 * i) : 0.0f;
    }
    for (int row = 16 * tiles.first + warp(); row < 16 * tiles.end; row += threads() / 32) {
        float values[(MOST + 31) / 32], sum = 0.0f, squares = 0.0f;
#pragma unroll
        for (int i = 0; i < (MOST + 31) / 32; i++) {
            values[i] = own + 32 * i < width ? x[row * stride + own + 32 * i] : 0.0f;
            sum += values[i];
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) sum += from_lane_beside(sum, distance);
        const float mean = sum / width;
#pragma unroll
        for (int i = 0; i < (MOST + 31) / 32; i++) {
            const float away = own + 32 * i < width ? values[i] - mean : 0.0f;
            squares += away * away;
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) squares += from_lane_beside(squares, distance);
        const float scale = 1.0f / sqrtf(squares / width + NORM_EPS);
#pragma unroll
        for (int i = 0; i < (MOST + 31) / 32; i++) {
            const int at = own + 32 * i;
            if (at < width) x[row * stride + at] = (values[i] - mean) * scale * weights[i] + biases[i];
        }
    }
}

/// The stored weights of a block of full width FULL and full inner width WIDE, in the order of `layout.rs`.
template <class Weight, int FULL, int WIDE>
struct Block {
    static const int MATRICES = 4 * FULL * FULL + 2 * WIDE * FULL;
    static const int VECTORS = 9 * FULL + WIDE + 4;
    const Weight* matrices;
    const float* vectors;

    /// Queries, keys, values and the output projection, 0 to 3: [FULL, FULL]
    DEVICE const Weight* attention(int which) const { return matrices + which * FULL * FULL; }
    DEVICE const Weight* inner() const { return matrices + 4 * FULL * FULL; }
    DEVICE const Weight* outer() const { return inner() + WIDE * FULL; }
    DEVICE const float* attention_bias(int which) const { return vectors + which * FULL; }
    DEVICE const float* attention_norm() const { return vectors + 4 * FULL; }
    DEVICE const float* inner_bias() const { return vectors + 6 * FULL; }
    DEVICE const float* outer_bias() const { return inner_bias() + WIDE; }
    DEVICE const float* ffn_norm() const { return outer_bias() + FULL; }
    DEVICE float attention_residual() const { return ffn_norm()[2 * FULL]; }
    DEVICE float ffn_residual() const { return ffn_norm()[2 * FULL + 1]; }
};

/// Runs a block over `x`, [16 tiles, width], with `y`, [16 tiles, max(3 width, inner)], for intermediate values. Both
/// are words of shared memory. If `newest`, only the tile of the newest position is computed after attention's keys and
/// values. Every warp must see `x` at the start, and does at the end. `attend` explains `bias`.
template <class A, int FULL, int WIDE, int HEAD_COUNT, bool CAUSAL, bool BIASED>
DEVICE void run(
    const Block<typename A::Weight, FULL, WIDE>& block, int x, int x_stride, int y, int y_stride, int width, int inner,
    float scale, const float* bias, int length, bool newest
) {
    const Tiles all = {0, (length + 15) / 16};
    const Tiles asked = {newest ? all.end - 1 : 0, all.end};
    // A head of a slice is a prefix of a stored head.
    const int kept = width / HEAD_COUNT, stored = FULL / HEAD_COUNT;
#pragma unroll 1
    for (int which = 0; which < 3; which++) {
        const Matrix<typename A::Weight> projection = {block.attention(which), FULL, kept, stored};
        const Out to = {shared(y + which * width), y_stride, NOBODY, block.attention_bias(which), false, 0.0f};
        product<A>(x, x_stride, width, projection, 0, width, which == 0 ? asked : all, to);
    }
    block_barrier();
    attend<FULL / HEAD_COUNT, CAUSAL, BIASED>(y, y_stride, width, HEAD_COUNT, asked, length, scale, bias);
    block_barrier();
    const Matrix<typename A::Weight> output = {block.attention(3), FULL, FULL, FULL};
    const Out attended = {shared(x), x_stride, NOBODY, block.attention_bias(3), true, block.attention_residual()};
    product<A>(y, y_stride, width, output, 0, width, asked, attended);
    block_barrier();
    norm<FULL>(shared(x), x_stride, width, block.attention_norm(), block.attention_norm() + FULL, asked);
    block_barrier();
    const Matrix<typename A::Weight> first = {block.inner(), FULL, WIDE, WIDE};
    const Out made = {shared(y), y_stride, NOBODY, block.inner_bias(), false, 0.0f};
    product<A>(x, x_stride, width, first, 0, inner, asked, made);
    block_barrier();
    gelu(shared(y), y_stride, inner, asked);
    block_barrier();
    const Matrix<typename A::Weight> second = {block.outer(), WIDE, FULL, FULL};
    const Out fed = {shared(x), x_stride, NOBODY, block.outer_bias(), true, block.ffn_residual()};
    product<A>(y, y_stride, inner, second, 0, width, asked, fed);
    block_barrier();
    norm<FULL>(shared(x), x_stride, width, block.ffn_norm(), block.ffn_norm() + FULL, asked);
    block_barrier();
}
