// The kernels' primitives on a CPU, for tests. A block's threads are contexts that take turns. An operation of a whole
// warp waits for its 32 lanes.

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

typedef unsigned int Word;
struct alignas(16) uint4 { Word x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }

#define DEVICE inline
#define APART inline
#define KERNEL(threads) static void

namespace emulated {

const int LANES = 32;
enum State { RUNS, WAITS, ENDED };
struct Fiber { ucontext_t context; State state; };
/// What lanes exchange. There are two boards, so that one can be filled while the other is still read.
struct Board { Word left[LANES][4], right[LANES][2]; float values[LANES]; };
struct Warp { int arrived, generation; Board boards[2]; };

static Fiber* fibers;
static Warp* warps;
static ucontext_t scheduler;
static void* shared;
static void (*body)(void**);
static void** arguments;
static int count, current, arrived, generation;
static unsigned block[2];

static void yield() { swapcontext(&fibers[current].context, &scheduler); }

static void enter() {
    body(arguments);
    fibers[current].state = ENDED;
    yield();
}

/// The board of the current exchange. Every lane calls `meet` before it reads.
static Board& board() { return warps[current / LANES].boards[warps[current / LANES].generation % 2]; }

static void meet() {
    Warp& own = warps[current / LANES];
    const int met = own.generation;
    if (++own.arrived == LANES) {
        own.arrived = 0;
        own.generation++;
        return;
    }
    while (own.generation == met) yield();
}

static void meet_block() {
    const int met = generation;
    if (++arrived == count) {
        arrived = 0;
        generation++;
        for (int i = 0; i < count; i++) {
            if (fibers[i].state == WAITS) fibers[i].state = RUNS;
        }
        return;
    }
    fibers[current].state = WAITS;
    while (generation == met) yield();
}

static void run_block() {
    for (int i = 0; i < count; i++) fibers[i].state = RUNS;
    arrived = 0;
    memset(warps, 0, sizeof(Warp) * (count / LANES));
    for (int i = 0; i < count; i++) makecontext(&fibers[i].context, enter, 0);
    for (bool any = true; any;) {
        any = false;
        for (int first = 0; first < count; first += LANES) {
            for (bool more = true; more;) {
                more = false;
                for (int i = first; i < first + LANES; i++) {
                    if (fibers[i].state != RUNS) continue;
                    more = any = true;
                    current = i;
                    swapcontext(&scheduler, &fibers[i].context);
                }
            }
        }
    }
}

static void launch(void (*kernel)(void**), unsigned x, unsigned y, int threads, size_t bytes, void** given) {
    const size_t stack = 256 << 10;
    body = kernel;
    arguments = given;
    count = threads;
    fibers = new Fiber[threads];
    warps = new Warp[threads / LANES];
    char* stacks = (char*)malloc(stack * threads);
    shared = aligned_alloc(16, (bytes + 15) / 16 * 16 + 16);
    for (block[1] = 0; block[1] < y; block[1]++) {
        for (block[0] = 0; block[0] < x; block[0]++) {
            // Unwritten memory reads as NaN.
            memset(shared, 0xff, bytes);
            for (int i = 0; i < threads; i++) {
                getcontext(&fibers[i].context);
                fibers[i].context.uc_stack.ss_sp = stacks + stack * i;
                fibers[i].context.uc_stack.ss_size = stack;
                fibers[i].context.uc_link = &scheduler;
            }
            run_block();
        }
    }
    free(shared);
    free(stacks);
    delete[] warps;
    delete[] fibers;
}

} // namespace emulated

static inline float* shared(int word) { return (float*)emulated::shared + word; }
static inline int thread() { return emulated::current; }
static inline int lane() { return emulated::current % 32; }
static inline int warp() { return emulated::current / 32; }
static inline int threads() { return emulated::count; }
static inline int block_x() { return emulated::block[0]; }
static inline int block_y() { return emulated::block[1]; }
static inline void block_barrier() { emulated::meet_block(); }
static inline void warp_barrier() { emulated::meet(); }
static inline int add_to(int* counter, int more) { return (*counter += more) - more; }
static inline Word bits(float value) { Word word; memcpy(&word, &value, 4); return word; }
static inline float number(Word word) { float value; memcpy(&value, &word, 4); return value; }
static inline float read_only(const float* place) { return *place; }
static inline uint4 read_sixteen(const void* place) { return *(const uint4*)place; }

static inline float from_lane_beside(float value, int distance) {
    emulated::Board& board = emulated::board();
    board.values[lane()] = value;
    emulated::meet();
    return board.values[lane() ^ distance];
}

static inline Word rounded_to_bf16(float value) {
    const Word word = bits(value);
    return (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
}

static inline Word to_bf16(float low, float high) { return rounded_to_bf16(high) << 16 | rounded_to_bf16(low); }

/// `parts` numbers a register. The layout is PTX's: "Matrix Fragments for mma.m16n8k8" and "mma.m16n8k16".
static inline void multiply(float (&c)[4], const Word* a, const Word* b, int parts) {
    emulated::Board& board = emulated::board();
    memcpy(board.left[lane()], a, 16);
    memcpy(board.right[lane()], b, 8);
    emulated::meet();
    for (int i = 0; i < 4; i++) {
        const int row = lane() / 4, column = lane() % 4 * 2 + i % 2;
        for (int half = 0; half < 2; half++) {
            for (int k = 0; k < 4; k++) {
                const Word left = board.left[row * 4 + k][2 * half + i / 2], right = board.right[column * 4 + k][half];
                if (parts == 1) c[i] += number(left) * number(right);
                else {
                    c[i] += number(left << 16) * number(right << 16);
                    c[i] += number(left & 0xffff0000u) * number(right & 0xffff0000u);
                }
            }
        }
    }
}

static inline void multiply_tf32(float (&c)[4], const Word* a, const Word* b) { multiply(c, a, b, 1); }
static inline void multiply_bf16(float (&c)[4], const Word* a, const Word* b) { multiply(c, a, b, 2); }
