/* Stands in for libedgetpu.so.1 where there is no Edge TPU: the same entry points, no hardware.
 *
 *     cc -O2 -fPIC -shared -fvisibility=hidden -o libedgetpu.so.1 edge_tpu.c
 *
 * Environment: STAND_IN_TPUS is what is plugged in, such as "usb,usb,pci" (default "usb", "" is
 * nothing); STAND_IN_BUSY, if set, is what creating a delegate fails with; STAND_IN_OLD, if set,
 * makes it a library of before TensorFlow 2.9; STAND_IN_LOG is a file that it appends its calls to.
 *
 * Like the real one it gives no reason when a device is not there.  What it "computes" for each
 * edgetpu-custom-op is output[i] = input[i % length] + i, in bytes, which a test can work out.
 *
 * The structures are TFLite's C interface on 64-bit machines, as far as they are used; their
 * beginnings have been the same from TensorFlow 2.5 to ai-edge-litert 2.3.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))
#define CUSTOM_OPERATOR "edgetpu-custom-op"

enum { OK = 0, FAILED = 1, ALLOW_DYNAMIC_TENSORS = 1, DELEGATE_OPERATOR = 51 };
enum { PCI = 0, USB = 1, MOST_DEVICES = 16 };

typedef struct { int size; int data[]; } IntArray;

typedef struct {
  int type;
  void *data;
  IntArray *dims;
  struct { float scale; int32_t zero_point; } scaling;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  void *delegate;
  int buffer_handle;
  _Bool data_is_stale, is_variable;
  struct { int type; void *parameters; } quantization;
  void *sparsity;
  const IntArray *dims_signature;
} Tensor;
/* The runtime keeps an array of these: a size that is off would read the wrong tensor. */
_Static_assert(sizeof(void *) != 8 || sizeof(Tensor) == 112, "not TFLite's tensor");

typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  const void *options;
  int options_size;
  void *delegate;
  _Bool has_side_effect;
} Node;

typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_name)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  /* From TensorFlow 2.9 on.  An older library passes fewer bytes, and a newer runtime takes
     whatever lies behind them for these. */
  void *external, *async_kernel;
  uint64_t inplace;
} Registration;

struct Context {
  size_t tensor_count;
  int (*plan)(Context *, IntArray **);
  Tensor *tensors;
  void *runtime;
  int (*resize)(Context *, Tensor *, IntArray *);
  void (*report)(Context *, const char *, ...);
  int (*add_tensors)(Context *, int, int *);
  int (*node)(Context *, int, Node **, Registration **);
  int (*take_over)(Context *, Registration, const IntArray *, Delegate *);
  /* more follows that is not used */
};

struct Delegate {
  void *data;
  int (*prepare)(Context *, Delegate *);
  void *copy_from, *copy_to, *free_buffer;
  int64_t flags;
  void *opaque_builder;
};

static void logged(const char *what, const char *value) {
  const char *path = getenv("STAND_IN_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s %s\n", what, value);
  fclose(file);
}

/* Writes what is plugged in to `kinds` and returns how many that are. */
static int plugged_in(int kinds[MOST_DEVICES]) {
  const char *list = getenv("STAND_IN_TPUS");
  int count = 0;
  for (list = list ? list : "usb"; *list && count < MOST_DEVICES; list += strcspn(list, ",")) {
    list += *list == ',';
    kinds[count++] = strncmp(list, "pci", 3) ? USB : PCI;
  }
  return count;
}

static void *kernel_init(Context *context, const char *options, size_t size) {
  (void)context, (void)options, (void)size;
  return NULL;
}
static void kernel_free(Context *context, void *data) { (void)context, (void)data; }
static int kernel_prepare(Context *context, Node *node) { return (void)context, (void)node, OK; }

static int kernel_invoke(Context *context, Node *node) {
  const Tensor *in = &context->tensors[node->inputs->data[0]];
  for (int k = 0; k < node->outputs->size; k++) {
    Tensor *out = &context->tensors[node->outputs->data[k]];
    for (size_t i = 0; i < out->bytes; i++)
      ((uint8_t *)out->data)[i] = ((const uint8_t *)in->data)[i % in->bytes] + (uint8_t)i;
  }
  return OK;
}

static int prepare(Context *context, Delegate *delegate) {
  IntArray *plan, *mine;
  if (context->plan(context, &plan) != OK) return FAILED;
  mine = malloc(sizeof(IntArray) + plan->size * sizeof(int));
  mine->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *known;
    if (context->node(context, plan->data[i], &node, &known) != OK) return FAILED;
    if (known->custom_name && !strcmp(known->custom_name, CUSTOM_OPERATOR))
      mine->data[mine->size++] = plan->data[i];
  }
  Registration kernel = {0};
  kernel.init = kernel_init;
  kernel.free = kernel_free;
  kernel.prepare = kernel_prepare;
  kernel.invoke = kernel_invoke;
  kernel.builtin_code = DELEGATE_OPERATOR;
  kernel.custom_name = "StandInEdgeTpu";
  kernel.version = 1;
  if (getenv("STAND_IN_OLD")) {
    kernel.external = kernel.async_kernel = (void *)0x11;
    kernel.inplace = ~0ull;
  }
  int status = mine->size ? context->take_over(context, kernel, mine, delegate) : OK;
  free(mine);
  return status;
}

/* Says whether `device`, which is "", usb, pci, :N, usb:N or pci:N, is plugged in. */
static int is_there(const char *device) {
  int kinds[MOST_DEVICES], count = plugged_in(kinds), matching = 0;
  const char *colon = strchr(device, ':');
  long wanted = colon ? strtol(colon + 1, NULL, 10) : 0;
  for (int i = 0; i < count; i++) {
    int any = *device == '\0' || *device == ':';
    matching += any || !strncmp(device, kinds[i] == USB ? "usb" : "pci", 3);
  }
  return wanted >= 0 && wanted < matching;
}

EXPORTED Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                                 void (*report)(const char *)) {
  const char *device = "", *busy = getenv("STAND_IN_BUSY");
  for (size_t i = 0; i < count; i++) {
    logged(keys[i], values[i]);
    if (!strcmp(keys[i], "device")) device = values[i];
  }
  if (busy) {
    if (report && *busy) report(busy);
    return NULL;
  }
  if (!is_there(device)) return NULL;
  Delegate *made = calloc(1, sizeof *made);
  made->prepare = prepare;
  /* Without it the runtime prepares the custom operator by itself first, and fails. */
  made->flags = ALLOW_DYNAMIC_TENSORS;
  return made;
}

/* Also called with NULL, after a delegate could not be created. */
EXPORTED void tflite_plugin_destroy_delegate(Delegate *delegate) {
  logged("destroy", delegate ? "one" : "none");
  free(delegate);
}

struct device { int kind; const char *path; };

EXPORTED struct device *edgetpu_list_devices(size_t *count) {
  int kinds[MOST_DEVICES];
  struct device *found;
  *count = plugged_in(kinds);
  if (!*count) return NULL;
  found = calloc(*count, sizeof *found);
  for (size_t i = 0; i < *count; i++) {
    found[i].kind = kinds[i];
    found[i].path = kinds[i] == USB ? "/sys/bus/usb/devices/stand-in" : "/dev/apex_stand_in";
  }
  return found;
}

EXPORTED void edgetpu_free_devices(struct device *devices) { free(devices); }
EXPORTED const char *edgetpu_version(void) { return "BuildLabel(stand-in), RuntimeVersion(14)"; }
EXPORTED void edgetpu_verbosity(int level) { (void)level; }
