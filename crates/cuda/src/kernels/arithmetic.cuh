// Products of fragments: 16 rows on the left, 8 columns on the right, a run of features between them.
//
// The order of features in a sum is free. So a lane takes features that are neighbours in memory, sixteen bytes of
// weights at a time, where the instruction numbers them otherwise. Both operands are read as they are stored: the
// instruction's features 0, 4, 1 and 5 are four neighbours in memory.

/// A number as the sum of two numbers of eleven significant bits. Bits are cut, not rounded, which takes no conversion.
/// The error is below 2^-21 of the number.
DEVICE void split(float value, Word& high, Word& low) {
    high = bits(value) & 0xffffe000u;
    low = bits(value - number(high)) & 0xffffe000u;
}

/// Float32 on tensor cores that know eleven bits: three products of halves, summed in float32.
struct Exact {
    typedef float Weight;
    /// Features of a run.
    static const int RUN = 16;
    struct Left { Word high[8], low[8]; };
    struct Right { Word high[4], low[4]; };

    /// Two rows, eight apart, each at the lane's first feature.
    static DEVICE void left(Left& to, const float* upper, const float* lower) {
        const float4 u = *(const float4*)upper, l = *(const float4*)lower;
        const float values[8] = {u.x, l.x, u.y, l.y, u.z, l.z, u.w, l.w};
#pragma unroll
        for (int i = 0; i < 8; i++) split(values[i], to.high[i], to.low[i]);
    }

    static DEVICE void right(Right& to, uint4 weights) {
        const Word values[4] = {weights.x, weights.y, weights.z, weights.w};
#pragma unroll
        for (int i = 0; i < 4; i++) split(number(values[i]), to.high[i], to.low[i]);
    }

    static DEVICE void multiply(float (&c)[4], const Left& left, const Right& right) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            multiply_tf32(c, left.low + 4 * step, right.high + 2 * step);
            multiply_tf32(c, left.high + 4 * step, right.low + 2 * step);
            multiply_tf32(c, left.high + 4 * step, right.high + 2 * step);
        }
    }
};

/// Both operands rounded to bfloat16, summed in float32.
struct Rounded {
    typedef unsigned short Weight;
    static const int RUN = 32;
    struct Left { Word pairs[8]; };
    struct Right { Word pairs[4]; };

    static DEVICE void left(Left& to, const float* upper, const float* lower) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            const float4 u = *(const float4*)(upper + 4 * step), l = *(const float4*)(lower + 4 * step);
            to.pairs[4 * step] = to_bf16(u.x, u.y);
            to.pairs[4 * step + 1] = to_bf16(l.x, l.y);
            to.pairs[4 * step + 2] = to_bf16(u.z, u.w);
            to.pairs[4 * step + 3] = to_bf16(l.z, l.w);
        }
    }

    static DEVICE void right(Right& to, uint4 weights) {
        to.pairs[0] = weights.x;
        to.pairs[1] = weights.y;
        to.pairs[2] = weights.z;
        to.pairs[3] = weights.w;
    }

    static DEVICE void multiply(float (&c)[4], const Left& left, const Right& right) {
        multiply_bf16(c, left.pairs, right.pairs);
        multiply_bf16(c, left.pairs + 4, right.pairs + 2);
    }
};
