/* A plugin for QEMU that counts the instructions of the program it runs, and says how many there
 * were since it last said so whenever the program calls getsid(), which nothing else calls.
 *
 * QEMU's qemu-plugin.h is part of no Debian package, so what is used of it is declared here as in
 * https://www.qemu.org/docs/master/devel/tcg-plugins.html, version 1, which QEMU 4.2 to 8.2 take.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))
#define GETSID 156 /* on 64-bit Arm */
#define NO_REGISTERS 0

typedef uint64_t Plugin;
typedef struct qemu_plugin_tb Block; /* instructions up to the next jump */

size_t qemu_plugin_tb_n_insns(const Block *);
void qemu_plugin_register_vcpu_tb_trans_cb(Plugin, void (*)(Plugin, Block *));
void qemu_plugin_register_vcpu_tb_exec_cb(Block *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_syscall_cb(
    Plugin, void (*)(Plugin, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                     uint64_t, uint64_t, uint64_t));

EXPORT int qemu_plugin_version = 1;

/* Of the thread that the program began with.  Others, such as those that a library keeps waiting in
 * a loop, take as many instructions as the machine gives them time for.
 */
static uint64_t count;

static void run(unsigned thread, void *instructions)
{
    if (thread == 0)
        count += (uintptr_t)instructions;
}

static void translated(Plugin plugin, Block *block)
{
    (void)plugin;
    void *instructions = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, run, NO_REGISTERS, instructions);
}

static void called(Plugin plugin, unsigned processor, int64_t number, uint64_t a, uint64_t b,
                   uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)plugin, (void)processor, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g;
    (void)h;
    if (number == GETSID) {
        fprintf(stderr, "instructions %llu\n", (unsigned long long)count);
        count = 0;
    }
}

EXPORT int qemu_plugin_install(Plugin plugin, const void *about, int count_, char **arguments)
{
    (void)about, (void)count_, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
    qemu_plugin_register_vcpu_syscall_cb(plugin, called);
    return 0;
}
