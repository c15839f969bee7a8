// Scores of the whole catalogue, and the best of them.

/// Rows of a batch that share what they read of the output layer.
static const int TOGETHER = 64;

/// The scores, [B, COLUMNS], of `newest`, [B, WIDTH], whose features from `width` on are zero. A block takes 64 rows
/// and a part of the columns.
KERNEL(THREADS) score(
    const float* newest, const float* output, const float* bias, float* scores, int rows, int width, int part
) {
    float* x = shared(0);
    const int first = block_y() * TOGETHER, own = rows - first < TOGETHER ? rows - first : TOGETHER;
    const Tiles tiles = {0, (own + 15) / 16};
    for (int at = thread(); at < 16 * tiles.end * width; at += threads()) {
        const int row = at / width, column = at % width;
        x[row * SCORE_STRIDE + column] = row < own ? newest[(size_t)(first + row) * WIDTH + column] : 0.0f;
    }
    block_barrier();
    const int column = block_x() * part, count = COLUMNS - column < part ? COLUMNS - column : part;
    const Matrix<float> matrix = {output, WIDTH, COLUMNS, COLUMNS};
    const Out to = {scores + (size_t)first * COLUMNS, COLUMNS, own, bias, false, 0.0f};
    if (count > 0) product<Exact>(0, SCORE_STRIDE, width, matrix, column, count, tiles, to);
}

/// Maps scores to unsigned numbers of the same order. NaN becomes 0, the lowest.
DEVICE Word key(float score) {
    const Word word = bits(score);
    if ((word & 0x7fffffffu) > 0x7f800000u) return 0;
    return word & 0x80000000u ? ~word : word | 0x80000000u;
}

/// Finds a row's `wanted` best scores that are allowed, and all scores that equal the last of them. Writes their
/// number, then up to `most` scores, then as many columns, in no order. Scores that are not allowed become NaN: those of
/// `excluded` from a place of the row to the next row's, and those outside the row's set, whose bits begin at a place of
/// `excluded`, -1 if the row has none.
KERNEL(THREADS) select(
    float* scores, const int* places, const int* sets, const int* excluded, int wanted, int most, int* found
) {
    int* counts = (int*)shared(0); // [256], then what was chosen
    float* row = scores + (size_t)block_x() * COLUMNS;
    int* own = found + (size_t)block_x() * (1 + 2 * most);
    for (int at = places[block_x()] + thread(); at < places[block_x() + 1]; at += threads()) {
        row[excluded[at]] = number(0x7fffffffu);
    }
    if (sets[block_x()] >= 0) {
        const Word* set = (const Word*)excluded + sets[block_x()];
        for (int at = thread(); at < COLUMNS; at += threads()) {
            if (!(set[at / 32] >> at % 32 & 1u)) row[at] = number(0x7fffffffu);
        }
    }
    block_barrier();
    // Finds the key of the last wanted score, eight bits at a time.
    Word prefix = 0;
    int missing = wanted;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int at = thread(); at < 256; at += threads()) counts[at] = 0;
        block_barrier();
        for (int at = thread(); at < COLUMNS; at += threads()) {
            const Word word = key(row[at]);
            const bool under = shift == 24 || (word >> shift >> 8) == (prefix >> shift >> 8);
            if (word != 0 && under) add_to(counts + (word >> shift & 255u), 1);
        }
        block_barrier();
        if (thread() == 0) {
            int digit = 255;
            for (; digit > 0 && counts[digit] < missing; digit--) missing -= counts[digit];
            counts[256] = digit;
            counts[257] = missing;
        }
        block_barrier();
        prefix |= (Word)counts[256] << shift;
        missing = counts[257];
        block_barrier();
    }
    if (thread() == 0) own[0] = 0;
    block_barrier();
    for (int at = thread(); at < COLUMNS; at += threads()) {
        const Word word = key(row[at]);
        if (word != 0 && word >= prefix) {
            const int place = add_to(own, 1);
            if (place < most) {
                own[1 + place] = (int)bits(row[at]);
                own[1 + most + place] = at;
            }
        }
    }
}
