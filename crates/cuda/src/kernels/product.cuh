// y = x Wᵀ with rows of x in shared memory and W as it is stored. Every warp takes some rows and some columns.

/// Tiles of 16 rows, from `first` up to `end`.
struct Tiles { int first, end; };

/// The rows of W that a slice reads: the first `kept` of every `stored` rows. A plain prefix keeps all.
template <class Weight>
struct Matrix {
    const Weight* weights;
    /// Features of a stored row.
    int stride;
    int kept, stored;

    DEVICE int row(int column) const { return column / kept * stored + column % kept; }
};

/// Runs of weights that are loaded while one is multiplied.
static const int AHEAD = 2;

/// More rows than there are.
static const int NOBODY = 1 << 30;

/// The destination of a product's columns. Each sum includes the bias of its stored row. It replaces the value at `to`,
/// or is added to it `scale` times. Rows from `rows` on are discarded.
struct Out {
    float* to;
    int stride, rows;
    const float* bias;
    bool adds;
    float scale;

    DEVICE void take(int row, int column, bool pair, float one, float other) const {
        if (row >= rows) return;
        float* place = to + (size_t)row * stride + column;
        place[0] = adds ? place[0] + scale * one : one;
        if (pair) place[1] = adds ? place[1] + scale * other : other;
    }
};

/// Adds MT tiles of rows times NT tiles of columns to c.
template <class A, int MT, int NT>
DEVICE void accumulate(
    float (&c)[MT][NT][4], int x, int x_stride, int features, const typename A::Weight* const (&weights)[NT]
) {
    const int own = lane() % 4 * (A::RUN / 4);
    const float* rows = shared(x) + lane() / 4 * x_stride + own;
    uint4 next[AHEAD][NT];
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
        if (s * A::RUN < features) {
#pragma unroll
            for (int j = 0; j < NT; j++) next[s][j] = read_sixteen(weights[j] + own + s * A::RUN);
        }
    }
#pragma unroll 1
    for (int first = 0; first < features; first += AHEAD * A::RUN) {
#pragma unroll
        for (int s = 0; s < AHEAD; s++) {
            const int at = first + s * A::RUN;
            if (at < features) {
                typename A::Right right[NT];
#pragma unroll
                for (int j = 0; j < NT; j++) A::right(right[j], next[s][j]);
                if (at + AHEAD * A::RUN < features) {
#pragma unroll
                    for (int j = 0; j < NT; j++) next[s][j] = read_sixteen(weights[j] + own + at + AHEAD * A::RUN);
                }
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    typename A::Left left;
                    A::left(left, rows + 16 * m * x_stride + at, rows + (16 * m + 8) * x_stride + at);
#pragma unroll
                    for (int j = 0; j < NT; j++) A::multiply(c[m][j], left, right[j]);
                }
            }
        }
    }
}

/// A warp's part of a product: `MT` tiles of rows from `tile` on, and every `groups`-th chunk of NT tiles of columns.
template <class A, int MT, int NT>
DEVICE void columns(
    int x, int x_stride, int features, const Matrix<typename A::Weight>& matrix, int first, int count, int tile,
    int group, int groups, const Out& out
) {
    const int tiles = (count + 7) / 8;
#pragma unroll 1
    for (int chunk = group; chunk * NT < tiles; chunk += groups) {
        const typename A::Weight* weights[NT];
#pragma unroll
        for (int j = 0; j < NT; j++) {
            // Columns behind the last one repeat it and are discarded.
            const int column = (chunk * NT + j) * 8 + lane() / 4;
            weights[j] = matrix.weights + (size_t)matrix.row(first + (column < count ? column : count - 1)) * matrix.stride;
        }
        // A sum starts with its bias.
        float c[MT][NT][4];
#pragma unroll
        for (int j = 0; j < NT; j++) {
            const int column = (chunk * NT + j) * 8 + lane() % 4 * 2;
            const float* bias = out.bias + matrix.row(first + (column < count ? column : 0));
            const float one = read_only(bias), other = column + 1 < count ? read_only(bias + 1) : 0.0f;
#pragma unroll
            for (int m = 0; m < MT; m++) {
                c[m][j][0] = c[m][j][2] = one;
                c[m][j][1] = c[m][j][3] = other;
            }
        }
        accumulate<A, MT, NT>(c, x + 16 * tile * x_stride, x_stride, features, weights);
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int j = 0; j < NT; j++) {
                const int row = 16 * (tile + m) + lane() / 4, column = (chunk * NT + j) * 8 + lane() % 4 * 2;
                if (column < count) {
                    out.take(row, first + column, column + 1 < count, c[m][j][0], c[m][j][1]);
                    out.take(row + 8, first + column, column + 1 < count, c[m][j][2], c[m][j][3]);
                }
            }
        }
    }
}

template <class A, int MT>
DEVICE void product_of(
    int chunk, int x, int x_stride, int features, const Matrix<typename A::Weight>& matrix, int first, int count,
    int tile, int group, int groups, const Out& out
) {
    if (chunk == 2) columns<A, MT, 2>(x, x_stride, features, matrix, first, count, tile, group, groups, out);
    else columns<A, MT, 1>(x, x_stride, features, matrix, first, count, tile, group, groups, out);
}

/// The block's product: rows of `tiles` of `x`, a word of shared memory, times `count` columns from `first` on. Warps
/// of one group of columns are neighbours, so that they read the same weights at the same time. There is no barrier
/// before or after.
template <class A>
APART void product(
    int x, int x_stride, int features, Matrix<typename A::Weight> matrix, int first, int count, Tiles tiles, Out out
) {
    const int pairs = (tiles.end - tiles.first + 1) / 2;
    const int groups = threads() / 32 / pairs, group = warp() / pairs;
    const int tile = tiles.first + warp() % pairs * 2;
    if (group >= groups) return;
    // Takes the chunk width that leaves the slowest group least to do, and the wider one of equals, which reads rows
    // less often. Four tiles would need more registers than there are.
    int chunk = 1, least = 1 << 30;
    for (int width = 1; width <= 2; width++) {
        const int chunks = (count + 8 * width - 1) / (8 * width), work = (chunks + groups - 1) / groups * width;
        if (work <= least) {
            least = work;
            chunk = width;
        }
    }
    if (tile + 1 < tiles.end) product_of<A, 2>(chunk, x, x_stride, features, matrix, first, count, tile, group, groups, out);
    else product_of<A, 1>(chunk, x, x_stride, features, matrix, first, count, tile, group, groups, out);
}
