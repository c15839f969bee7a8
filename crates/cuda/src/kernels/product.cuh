// y = x Wᵀ, rows of x in shared memory, W as it is stored: every warp takes some rows and some columns.

/// Tiles of 16 rows, the first and the one behind the last.
struct Tiles { int first, end; };

/// The rows of W that a slice reads: of every `stored` rows the first `kept`. A plain prefix keeps all.
template <class Weight>
struct Matrix {
    const Weight* weights;
    /// Features a stored row.
    int stride;
    int kept, stored;

    DEVICE int row(int column) const { return column / kept * stored + column % kept; }
};

/// Runs of weights that are on their way while one is multiplied.
static const int AHEAD = 2;

/// More rows than there are.
static const int NOBODY = 1 << 30;

/// Where a product's columns go, each with the bias of its stored row: into `to`, or `scale` times to what is there. Rows from
/// `rows` on are nobody's.
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

/// MT tiles of rows times NT tiles of columns, added to c.
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

/// A warp's share of a product: `MT` tiles of rows from `tile` on, every `groups`-th chunk of NT tiles of columns.
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
            // Columns behind the last one repeat it; nobody takes them.
            const int column = (chunk * NT + j) * 8 + lane() / 4;
            weights[j] = matrix.weights + (size_t)matrix.row(first + (column < count ? column : count - 1)) * matrix.stride;
        }
        // A sum begins with its bias.
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

/// The block's product: rows of `tiles` of what lies in shared memory from word `x` on, `count` columns from `first` on. Warps of one group of columns stand side by side, so
/// that those who read the same weights read them together. No barrier: neither before nor behind it.
template <class A>
APART void product(
    int x, int x_stride, int features, Matrix<typename A::Weight> matrix, int first, int count, Tiles tiles, Out out
) {
    const int pairs = (tiles.end - tiles.first + 1) / 2;
    const int groups = threads() / 32 / pairs, group = warp() / pairs;
    const int tile = tiles.first + warp() % pairs * 2;
    if (group >= groups) return;
    // The chunk with which the slowest group has least to do; of equal ones the wider, which reads rows less
    // often. Four tiles want more registers than there are.
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
