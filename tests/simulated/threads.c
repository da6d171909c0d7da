/* The threads of a kernel on the CPU: each is a fiber that runs until the block's barrier.

   All threads of a block run, one after the other, from one barrier to the next; blocks run one after the other.
   Both orders are chosen: forward, backward, or another one each time. What no barrier orders may so come in any
   order, and shared memory begins each block filled with NaNs. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { STACK = 128 * 1024, MOST_THREADS = 1024 };
enum { FORWARD, BACKWARD, RANDOM };

typedef struct {
    void *address;
    size_t size;
} Shared;

typedef struct {
    int x, y, z;
} Place;

long simulated_blocks, simulated_barriers, simulated_divergent;

static ucontext_t starts[MOST_THREADS], host_start;
static jmp_buf fibers[MOST_THREADS], host;
static char *stacks;
static int ended[MOST_THREADS];
static int running;
static void *barrier;
static Place thread, block, block_size, grid_size;
static void (*kernel)(void **);
static void **values;

static uint64_t random_bits(void) { /* xorshift, Marsaglia 2003 */
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void put_in_order(int *order, int count, int kind) {
    for (int i = 0; i < count; i++) order[i] = kind == BACKWARD ? count - 1 - i : i;
    for (int i = count - 1; kind == RANDOM && i > 0; i--) {
        int j = random_bits() % (i + 1), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

static void begin(void) {
    kernel(values);
    ended[running] = 1;
    _longjmp(host, 1);
}

static void go_on(int fiber, int first) {
    running = fiber;
    thread = (Place){fiber % block_size.x, fiber / block_size.x, 0};
    if (_setjmp(host)) return;
    if (!first) _longjmp(fibers[fiber], 1);
    ucontext_t *start = &starts[fiber];
    getcontext(start);
    start->uc_stack.ss_sp = stacks + (size_t)fiber * STACK;
    start->uc_stack.ss_size = STACK;
    makecontext(start, begin, 0);
    swapcontext(&host_start, start);
}

static void run_block(int threads, int kind) {
    int order[MOST_THREADS], left = threads;
    memset(ended, 0, sizeof ended);
    for (int first = 1; left > 0; first = 0) {
        int waiting = 0, apart = 0;
        void *common = NULL;
        put_in_order(order, threads, kind);
        for (int i = 0; i < threads; i++) {
            if (ended[order[i]]) continue;
            go_on(order[i], first);
            if (ended[order[i]]) {
                left--;
                continue;
            }
            if (waiting++ == 0) common = barrier;
            apart |= barrier != common;
        }
        simulated_barriers += waiting > 0;
        simulated_divergent += apart || (waiting > 0 && waiting < threads);
    }
    simulated_blocks++;
}

void simulated_run(void (*entry)(void **), void **arguments, const unsigned *grid, const unsigned *block_shape,
                   const Shared *shared, int shared_count, int kind) {
    int blocks = grid[0] * grid[1], *order = malloc(blocks * sizeof *order);
    if (!stacks) stacks = malloc((size_t)MOST_THREADS * STACK);
    kernel = entry;
    values = arguments;
    grid_size = (Place){grid[0], grid[1], 1};
    block_size = (Place){block_shape[0], block_shape[1], 1};
    put_in_order(order, blocks, kind);
    for (int i = 0; i < blocks; i++) {
        block = (Place){order[i] % grid_size.x, order[i] / grid_size.x, 0};
        for (int j = 0; j < shared_count; j++) memset(shared[j].address, 0xFF, shared[j].size);
        run_block(block_size.x * block_size.y, kind);
    }
    free(order);
}

/* What compiled kernels call. */
void cu_barrier(void) {
    barrier = __builtin_return_address(0);
    if (!_setjmp(fibers[running])) _longjmp(host, 1);
}
void cu_fence(void) {}

#define REGISTER(name, place) \
    int cu_##name##_x(void) { return place.x; } \
    int cu_##name##_y(void) { return place.y; } \
    int cu_##name##_z(void) { return place.z; }
REGISTER(tid, thread)
REGISTER(ctaid, block)
REGISTER(ntid, block_size)
REGISTER(nctaid, grid_size)

#define FUNCTION(name) \
    float __nv_##name##f(float x) { return name##f(x); } \
    double __nv_##name(double x) { return name(x); }
FUNCTION(exp)
FUNCTION(expm1)
FUNCTION(log)
FUNCTION(log1p)
FUNCTION(tanh)
FUNCTION(erf)
FUNCTION(sqrt)
FUNCTION(fabs)
float __nv_powf(float x, float y) { return powf(x, y); }
double __nv_pow(double x, double y) { return pow(x, y); }

float cu_f32_of_f16(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return half;
}
uint16_t cu_f16_of_f32(float x) {
    _Float16 half = x;
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}
float cu_f32_of_bf16(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
uint16_t cu_bf16_of_f32(float x) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return isnan(x) ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
