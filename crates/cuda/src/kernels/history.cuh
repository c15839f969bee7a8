// One block computes one history, from its items to the network's output at the newest item: the backbone's slice, and
// the router.

/// A history of a batch and its slice, as `batch.rs` writes it.
struct History { int token, length, hidden, layers, embedding, unused[3]; };

/// The embedding of a history: item rows, plus `positions` unless null, which starts at the row of the oldest item.
/// Rows behind the last item are zero.
DEVICE void embed(
    float* x, int stride, const float* items, const float* positions, int table, int width, const int* tokens, int length
) {
    const int rows = (length + 15) / 16 * 16, quarters = width / 4;
    for (int at = thread(); at < rows * quarters; at += threads()) {
        const int row = at / quarters, column = at % quarters * 4;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (row < length) {
            sum = *(const float4*)(items + (size_t)tokens[row] * table + column);
            if (positions) {
                const float4 position = *(const float4*)(positions + (size_t)row * table + column);
                sum = make_float4(sum.x + position.x, sum.y + position.y, sum.z + position.z, sum.w + position.w);
            }
        }
        *(float4*)(x + row * stride + column) = sum;
    }
    block_barrier();
}

/// The slices' outputs at the newest positions, [B, WIDTH], zeros behind a slice's width. `positions` is a table,
/// [MAX_LEN, EMBEDDING], or the biases of relative positions, [layers, HEADS, MAX_LEN].
KERNEL(THREADS) backbone(
    const Stored::Weight* matrices, const float* vectors, const float* items, const float* positions, const int* tokens,
    const History* histories, float* newest
) {
    const int x = 0, y = 16 * TILES * X_STRIDE;
    const History own = histories[block_x()];
    const int width = own.hidden, length = own.length;
    const Tiles all = {0, (length + 15) / 16};
    const float* rows = POSITIONS == NEWEST ? positions + (size_t)(MAX_LEN - length) * EMBEDDING
        : POSITIONS == OLDEST ? positions : nullptr;
    embed(shared(y), Y_STRIDE, items, rows, EMBEDDING, own.embedding, tokens + own.token, length);
    if (EMBEDDING_NORM) {
        const float* weight = vectors + WIDTH;
        norm<EMBEDDING>(shared(y), Y_STRIDE, own.embedding, weight, weight + EMBEDDING, all);
        block_barrier();
    }
    const Matrix<Stored::Weight> input = {matrices, EMBEDDING, WIDTH, WIDTH};
    const Out projected = {shared(x), X_STRIDE, NOBODY, vectors, false, 0.0f};
    product<Stored>(y, Y_STRIDE, own.embedding, input, 0, width, all, projected);
    block_barrier();
    typedef Block<Stored::Weight, WIDTH, INNER> Own;
    Own block = {matrices + WIDTH * EMBEDDING, vectors + WIDTH + (EMBEDDING_NORM ? 2 * EMBEDDING : 0)};
    const int inner = FULL_INNER ? INNER : width * 4;
    const float scale = 1.0f / sqrtf((float)((FULL_SCALE ? WIDTH : width) / HEADS));
    for (int layer = 1; layer <= own.layers; layer++) {
        const float* bias = POSITIONS == RELATIVE ? positions + (size_t)(layer - 1) * HEADS * MAX_LEN : nullptr;
        run<Stored, WIDTH, INNER, HEADS, true, POSITIONS == RELATIVE>(
            block, x, X_STRIDE, y, Y_STRIDE, width, inner, scale, bias, length, layer == own.layers
        );
        block.matrices += Own::MATRICES;
        block.vectors += Own::VECTORS;
    }
    for (int at = thread(); at < WIDTH; at += threads()) {
        newest[(size_t)block_x() * WIDTH + at] = at < width ? shared(x)[(length - 1) * X_STRIDE + at] : 0.0f;
    }
}

/// The router's logits: [B, ROUTES]
KERNEL(THREADS) router(
    const float* matrices, const float* vectors, const float* items, const float* positions, const int* tokens,
    const History* histories, float* logits
) {
    const int x = 0, y = 16 * TILES * ROUTER_X_STRIDE;
    const History own = histories[block_x()];
    const float* rows = positions + (size_t)(MAX_LEN - own.length) * ROUTER_WIDTH;
    embed(shared(x), ROUTER_X_STRIDE, items, rows, ROUTER_WIDTH, ROUTER_WIDTH, tokens + own.token, own.length);
    typedef Block<float, ROUTER_WIDTH, ROUTER_INNER> Own;
    const Own block = {matrices, vectors};
    const float scale = 1.0f / sqrtf((float)(ROUTER_WIDTH / ROUTER_HEADS));
    run<Exact, ROUTER_WIDTH, ROUTER_INNER, ROUTER_HEADS, false, false>(
        block, x, ROUTER_X_STRIDE, y, ROUTER_Y_STRIDE, ROUTER_WIDTH, ROUTER_INNER, scale, nullptr, own.length, true
    );
    const float* head = matrices + Own::MATRICES;
    for (int route = thread(); route < ROUTES; route += threads()) {
        float sum = vectors[Own::VECTORS + route];
        for (int at = 0; at < ROUTER_WIDTH; at++) {
            sum += head[route * ROUTER_WIDTH + at] * shared(x)[(own.length - 1) * ROUTER_X_STRIDE + at];
        }
        logits[(size_t)block_x() * ROUTES + route] = sum;
    }
}
