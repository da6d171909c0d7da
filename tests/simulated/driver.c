/* A CUDA driver without a card: what numba-cuda calls of libcuda.so.1, and where a launch goes.

   Device memory is the host's, each thread has its stack of contexts, and a kernel is known by its name: a launch
   calls back with the name, the grid, the block and the addresses of the arguments. Every call is noted. A function
   that is not here is answered as by a driver that is too old for it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_CONTEXT = 201, NOT_FOUND = 500, DEVICES = 1, DEEPEST = 64 };

typedef struct {
    unsigned grid[3], block[3], shared;
    void *stream, *attributes;
    unsigned attribute_count;
} Configuration;

typedef void (*Launched)(const char *kernel, const Configuration *configuration, void **arguments);

static Launched launched;
static int version, capability;
static char calls[1 << 16];
static size_t calls_length;
static char contexts[DEVICES];
static _Thread_local void *stack[DEEPEST];
static _Thread_local int depth;

void simulated_configure(int driver_version, int compute_capability, Launched callback) {
    version = driver_version;
    capability = compute_capability;
    launched = callback;
}

/* The names of the functions called since `simulated_forget`, each with a space behind it. */
const char *simulated_calls(void) { return calls; }

void simulated_forget(void) { calls[calls_length = 0] = 0; }

static int done(const char *name) {
    size_t length = strlen(name);
    if (calls_length + length + 2 < sizeof calls) {
        memcpy(calls + calls_length, name, length);
        memcpy(calls + calls_length + length, " ", 2);
        calls_length += length + 1;
    }
    return 0;
}

#define DONE done(__func__)

int cuInit(unsigned flags) { return DONE; }
int cuDriverGetVersion(int *found) { return *found = version, DONE; }

/* Devices and contexts. */
static void *current(void) { return depth ? stack[depth - 1] : NULL; }
static int device_of(void *context) { return (char *)context - contexts; }

int cuDeviceGetCount(int *count) { return *count = DEVICES, DONE; }
int cuDeviceGet(int *device, int index) { return *device = index, DONE; }
int cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "simulated"), DONE; }
int cuDeviceGetUuid_v2(void *uuid, int device) { return memset(uuid, device + 1, 16), DONE; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    static const int known[][2] = {
        {1, 1024},   /* MAX_THREADS_PER_BLOCK */
        {2, 1024},   /* MAX_BLOCK_DIM_X */
        {3, 1024},   /* MAX_BLOCK_DIM_Y */
        {4, 64},     /* MAX_BLOCK_DIM_Z */
        {5, INT32_MAX}, /* MAX_GRID_DIM_X */
        {6, 65535},  /* MAX_GRID_DIM_Y */
        {7, 65535},  /* MAX_GRID_DIM_Z */
        {8, 49152},  /* MAX_SHARED_MEMORY_PER_BLOCK */
        {10, 32},    /* WARP_SIZE */
        {16, 132},   /* MULTIPROCESSOR_COUNT */
        {41, 1},     /* UNIFIED_ADDRESSING */
    };
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i][0] == attribute) *value = known[i][1];
    return DONE;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = contexts + device, DONE; }
int cuDevicePrimaryCtxRelease_v2(int device) { return DONE; }
int cuCtxGetCurrent(void **context) { return *context = current(), DONE; }
int cuCtxSetCurrent(void *context) {
    if (depth) depth--;
    if (context) stack[depth++] = context;
    return DONE;
}
int cuCtxPushCurrent_v2(void *context) {
    if (depth == DEEPEST) return INVALID_CONTEXT;
    return stack[depth++] = context, DONE;
}
int cuCtxPopCurrent_v2(void **context) {
    if (!depth) return INVALID_CONTEXT;
    void *top = stack[--depth];
    if (context) *context = top;
    return DONE;
}
int cuCtxGetDevice(int *device) {
    if (!depth) return INVALID_CONTEXT;
    return *device = device_of(current()), DONE;
}
int cuMemGetInfo_v2(size_t *left, size_t *total) { return *left = *total = 1ull << 30, DONE; }

/* Modules: what a kernel is, the callback knows by its name. */
int cuLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned m) {
    return *library = malloc(1), DONE;
}
int cuLibraryUnload(void *library) { return free(library), DONE; }
int cuLibraryGetKernel(void **kernel, void *library, const char *name) { return *kernel = strdup(name), DONE; }
int cuLibraryGetGlobal(void **address, size_t *size, void *library, const char *name) { return DONE, NOT_FOUND; }
int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) { return *value = 0, DONE; }
int cuFuncGetAttribute(int *value, int attribute, void *kernel) { return *value = 0, DONE; }
int cuLaunchKernelEx(const Configuration *configuration, void *kernel, void **arguments, void **extra) {
    return launched(kernel, configuration, arguments), DONE;
}

/* The driver's functions are found through this one, in the newest kind that there is. */
int cuGetProcAddress_v2(const char *name, void **found, int wanted_version, uint64_t flags, int *status) {
    static const char *kinds[] = {"_v3", "_v2", ""};
    char full[256];
    Dl_info here;
    dladdr((void *)cuGetProcAddress_v2, &here);
    void *library = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *found = NULL;
    for (int kind = 0; kind < 3 && !*found; kind++) {
        snprintf(full, sizeof full, "%s%s", name, kinds[kind]);
        *found = dlsym(library, full);
    }
    if (status) *status = *found == NULL;
    return *found ? 0 : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **found, int wanted_version, uint64_t flags) {
    return cuGetProcAddress_v2(name, found, wanted_version, flags, NULL);
}
