// The primitives of the kernels on a GPU. The tests replace this file by ../emulated/primitives.h for a CPU.

typedef unsigned int Word;

#define DEVICE __device__ __forceinline__
#define APART __device__ __noinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
extern __shared__ float4 shared_memory[];

DEVICE float read_only(const float* place) { return __ldg(place); }

/// The block's shared memory from a word on. Functions that are not inlined take the word instead of an address, so
/// that the compiler knows the kind of memory.
DEVICE float* shared(int word) { return (float*)shared_memory + word; }
DEVICE int thread() { return threadIdx.x; }
DEVICE int lane() { return threadIdx.x % 32; }
DEVICE int warp() { return threadIdx.x / 32; }
DEVICE int threads() { return blockDim.x; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE void block_barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }
DEVICE float from_lane_beside(float value, int distance) { return __shfl_xor_sync(0xffffffffu, value, distance); }
DEVICE int add_to(int* counter, int more) { return atomicAdd(counter, more); }
DEVICE Word bits(float value) { return __float_as_uint(value); }
DEVICE float number(Word value) { return __uint_as_float(value); }
/// Sixteen bytes that nobody writes while the kernel runs.
DEVICE uint4 read_sixteen(const void* place) { return __ldg((const uint4*)place); }

/// Two numbers rounded to bfloat16, the first in the low half.
DEVICE Word to_bf16(float low, float high) {
    Word pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/// c += a b for matrices of [16, 8] and [8, 8], spread over a warp as PTX's mma.m16n8k8 says.
DEVICE void multiply_tf32(float (&c)[4], const Word* a, const Word* b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// c += a b for matrices of [16, 16] and [16, 8], spread over a warp as PTX's mma.m16n8k16 says.
DEVICE void multiply_bf16(float (&c)[4], const Word* a, const Word* b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
