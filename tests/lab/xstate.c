// ptrace(2) for linux.uml on processors with AMX: the kernel wants, and gives, extended registers (NT_X86_XSTATE) whole or
// not at all, 11 KB of them there. User-Mode Linux keeps 2696 bytes, everything up to AVX-512 and protection keys, and its
// first process dies of SIGSEGV. Preloaded, this adds the rest: tiles, which nothing in the guest uses, in their first state.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// XSTATE_BV, the features that are not in their first state: Intel SDM volume 1, 13.4.2. Bits 17 and 18 are AMX.
enum { FEATURES = 512, TILES = 3 << 17 };

static char whole[1 << 16] __attribute__((aligned(64)));

static long registers(int request, long pid, struct iovec *wanted)
{
    struct iovec all = {whole, sizeof whole};
    if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all) < 0)
        return -1;
    size_t length = wanted->iov_len < all.iov_len ? wanted->iov_len : all.iov_len;
    if (request == PTRACE_GETREGSET) {
        memcpy(wanted->iov_base, whole, length);
        wanted->iov_len = length;
        return 0;
    }
    memcpy(whole, wanted->iov_base, length);
    uint64_t features;
    memcpy(&features, whole + FEATURES, sizeof features);
    features &= ~(uint64_t)TILES;
    memcpy(whole + FEATURES, &features, sizeof features);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list words;
    va_start(words, request);
    long pid = va_arg(words, int), address = va_arg(words, long);
    void *data = va_arg(words, void *);
    va_end(words);
    if ((request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) && address == NT_X86_XSTATE)
        return registers(request, pid, data);
    // A word that is looked at comes by the pointer: ptrace(2), "C library/kernel differences".
    long word, result;
    int peeks = request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER;
    result = syscall(SYS_ptrace, request, pid, address, peeks ? &word : data);
    if (peeks && result == 0) {
        errno = 0;
        return word;
    }
    return result;
}
