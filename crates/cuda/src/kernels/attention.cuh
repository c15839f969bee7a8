// softmax(scale Q Kᵀ) V of every head, in float32. A warp takes the queries of one tile of one head, so scores, softmax
// and mixed values never leave its registers.

/// A left fragment of two rows, eight apart, whose features are neighbours in shared memory.
DEVICE void pairs_left(Word (&high)[4], Word (&low)[4], const float* upper, const float* lower) {
    const float2 u = *(const float2*)upper, l = *(const float2*)lower;
    split(u.x, high[0], low[0]);
    split(l.x, high[1], low[1]);
    split(u.y, high[2], low[2]);
    split(l.y, high[3], low[3]);
}

DEVICE void exact(float (&c)[4], const Word (&ah)[4], const Word (&al)[4], float b0, float b1) {
    Word high[2], low[2];
    split(b0, high[0], low[0]);
    split(b1, high[1], low[1]);
    multiply_tf32(c, al, high);
    multiply_tf32(c, ah, low);
    multiply_tf32(c, ah, high);
}

DEVICE float greatest_of_row(float value) {
    value = fmaxf(value, from_lane_beside(value, 1));
    return fmaxf(value, from_lane_beside(value, 2));
}

DEVICE float sum_of_row(float value) {
    value += from_lane_beside(value, 1);
    return value + from_lane_beside(value, 2);
}

/// Shared memory from word `from` on holds queries in columns [0, width), keys in [width, 2 width) and values in [2
/// width, 3 width), heads beside each other. The results for the positions of `queries` replace their queries. HEAD is
/// the most features of a head. If BIASED, `bias`, [heads, MAX_LEN], is added to the scaled scores by head and
/// distance; it requires CAUSAL, so that no distance is negative.
template <int HEAD, bool CAUSAL, bool BIASED>
APART void attend(
    int from, int stride, int width, int heads, Tiles queries, int length, float scale, const float* bias
) {
    float* y = shared(from);
    const int head_width = width / heads, count = queries.end - queries.first;
    const int across = lane() / 4, along = lane() % 4 * 2;
#pragma unroll 1
    for (int unit = warp(); unit < heads * count; unit += threads() / 32) {
        const int head = unit % heads, tile = queries.first + unit / heads;
        float* query = y + 16 * tile * stride + head * head_width;
        const float* key = y + width + head * head_width;
        const float* value = key + width;
        const int upper = 16 * tile + across, lower = upper + 8;
        // Tiles of eight keys.
        const int last = CAUSAL && 16 * tile + 15 < length ? 16 * tile + 15 : length - 1;
        const int keys = last / 8 + 1;
        float scores[2 * TILES][4] = {};
#pragma unroll 1
        for (int at = 0; at < head_width; at += 8) {
            Word high[4], low[4];
            pairs_left(high, low, query + across * stride + at + along, query + (across + 8) * stride + at + along);
#pragma unroll
            for (int j = 0; j < 2 * TILES; j++) {
                if (j < keys) {
                    const float2 k = *(const float2*)(key + (8 * j + across) * stride + at + along);
                    exact(scores[j], high, low, k.x, k.y);
                }
            }
        }
        float top[2] = {-3e38f, -3e38f};
#pragma unroll
        for (int j = 0; j < 2 * TILES; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = i < 2 ? upper : lower, column = 8 * j + along + i % 2;
                const bool seen = column < length && (!CAUSAL || column <= row);
                scores[j][i] = seen ? scores[j][i] * scale : -3e38f;
                if (BIASED && seen) {
                    // Rows behind the newest position may exceed the distances that have a bias.
                    const int distance = row - column < MAX_LEN ? row - column : MAX_LEN - 1;
                    scores[j][i] += read_only(bias + head * MAX_LEN + distance);
                }
                top[i / 2] = fmaxf(top[i / 2], scores[j][i]);
            }
        }
        top[0] = greatest_of_row(top[0]);
        top[1] = greatest_of_row(top[1]);
        float sum[2] = {0.0f, 0.0f};
        float mixed[HEAD / 8][4] = {};
#pragma unroll
        for (int j = 0; j < 2 * TILES; j++) {
            if (j < keys) {
                Word high[4], low[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float weight = scores[j][i] > -3e38f ? expf(scores[j][i] - top[i / 2]) : 0.0f;
                    sum[i / 2] += weight;
                    // A product leaves its columns where the next product expects its features.
                    const int place = i == 1 ? 2 : i == 2 ? 1 : i;
                    split(weight, high[place], low[place]);
                }
                const float* rows = value + (8 * j + along) * stride + across;
#pragma unroll
                for (int i = 0; i < HEAD / 8; i++) {
                    if (8 * i < head_width) exact(mixed[i], high, low, rows[8 * i], rows[8 * i + stride]);
                }
            }
        }
        sum[0] = sum_of_row(sum[0]);
        sum[1] = sum_of_row(sum[1]);
        // Waits until the other lanes have read their queries.
        warp_barrier();
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++) {
            if (8 * i < head_width) {
                float* to = query + across * stride + 8 * i + along;
                *(float2*)to = make_float2(mixed[i][0] / sum[0], mixed[i][1] / sum[0]);
                *(float2*)(to + 8 * stride) = make_float2(mixed[i][2] / sum[1], mixed[i][3] / sum[1]);
            }
        }
    }
}
