// A stack that can be left and resumed: a few instructions on x86-64, ucontext elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#define SIMT_FIBER_UCONTEXT
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt::host {

constexpr size_t kStackBytes = 64 * 1024;

struct Fiber {
#ifdef SIMT_FIBER_UCONTEXT
    ucontext_t context;
#else
    void *stack_pointer = nullptr;
#endif
    const void *stack_bottom = nullptr;
    size_t stack_size = 0;
    void *fake_stack = nullptr;  // AddressSanitizer's
};

#ifndef SIMT_FIBER_UCONTEXT
// Saves the callee-saved registers on the stack, stores the stack pointer, and does the reverse with the other stack.
extern "C" void simt_fiber_switch(void **save, void *load);
#endif

// Prepares `fiber` to run `main`, which never returns, on `stack`.
inline void fiber_make(Fiber &fiber, uint8_t *stack, void (*main)()) {
    fiber.stack_bottom = stack;
    fiber.stack_size = kStackBytes;
    fiber.fake_stack = nullptr;
#ifdef SIMT_FIBER_UCONTEXT
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, main, 0);
#else
    // Six registers, the address `ret` takes, and a slot that keeps the stack as after a call: 16-byte aligned plus 8.
    auto *top = reinterpret_cast<uint64_t *>(stack + kStackBytes) - 8;
    for (int i = 0; i < 8; ++i) top[i] = 0;
    top[6] = reinterpret_cast<uint64_t>(main);
    fiber.stack_pointer = top;
#endif
}

inline void fiber_entered([[maybe_unused]] Fiber &fiber) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

inline void fiber_switch(Fiber &from, Fiber &to) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_size);
#endif
#ifdef SIMT_FIBER_UCONTEXT
    swapcontext(&from.context, &to.context);
#else
    simt_fiber_switch(&from.stack_pointer, to.stack_pointer);
#endif
    fiber_entered(from);
}

}  // namespace simt::host
