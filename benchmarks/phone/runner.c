/* runner MODEL REQUEST REPLY: one process that loads a model with onnxruntime's C API, runs texts, writes JSON.

   REQUEST, words and whole numbers:
     inputs name ...                   how many inputs the model has, and their names
     threads warmup samples texts      threads of the runtime, untimed and timed calls of every text
     length id ... [segment ...]       one line per text; segments only if token_type_ids is among the inputs
   Every token is attended to. REPLY: {"runtime_version", "load_ms", "first_ms", "peak_rss_bytes",
   "texts": [{"logits": [...], "samples_ms": [...]}]}. Times are of session.Run alone, by CLOCK_MONOTONIC.
   onnxruntime is libonnxruntime.so.1, found as the dynamic linker finds it, so that one runner does for several
   versions of it. Exit code 0, or 1 with one line on standard error. */

#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API_VERSION 20 /* old enough for any runtime that is tested, new enough for what is called here */
#define MAX_INPUTS 3
#define MAX_NAME 64
#define MAX_LENGTH 8192
#define MAX_TEXTS 100000

static const OrtApi *ort;

static void stop(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vfprintf(stderr, format, words);
    va_end(words);
    fputc('\n', stderr);
    exit(1);
}

static void check(OrtStatus *status) {
    if (status) stop("%s", ort->GetErrorMessage(status));
}

static double now_ms(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static long long next_number(FILE *file, long long low, long long high, const char *what) {
    long long value;
    if (fscanf(file, "%lld", &value) != 1) stop("request: no number for %s", what);
    if (value < low || value > high) stop("request: %s is %lld, wanted %lld to %lld", what, value, low, high);
    return value;
}

static long long peak_rss_bytes(void) {
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld", &kib) == 1) break;
    if (file) fclose(file);
    if (!kib) stop("no VmHWM in /proc/self/status");
    return kib * 1024;
}

static void *memory(size_t bytes) {
    void *found = malloc(bytes ? bytes : 1);
    if (!found) stop("no memory for %zu bytes", bytes);
    return found;
}

/* One call; its logits replace those in *logits. Returns its milliseconds. */
static double run(OrtSession *session, const char *const *names, const OrtValue *const *inputs, int count,
                  float **logits, size_t *labels) {
    static const char *const outputs[] = {"logits"};
    OrtValue *output = NULL;
    OrtTensorTypeAndShapeInfo *shape = NULL;
    float *values = NULL;
    double began = now_ms();
    check(ort->Run(session, NULL, names, inputs, (size_t)count, outputs, 1, &output));
    double took = now_ms() - began;
    check(ort->GetTensorTypeAndShape(output, &shape));
    check(ort->GetTensorShapeElementCount(shape, labels));
    check(ort->GetTensorMutableData(output, (void **)&values));
    free(*logits);
    *logits = memory(*labels * sizeof(float));
    memcpy(*logits, values, *labels * sizeof(float));
    ort->ReleaseTensorTypeAndShapeInfo(shape);
    ort->ReleaseValue(output);
    return took;
}

int main(int count, char **arguments) {
    if (count != 4) stop("usage: runner MODEL REQUEST REPLY");
    FILE *request = fopen(arguments[2], "r");
    if (!request) stop("%s: cannot be read", arguments[2]);
    char names[MAX_INPUTS][MAX_NAME];
    const char *name_list[MAX_INPUTS];
    int inputs = (int)next_number(request, 1, MAX_INPUTS, "inputs");
    for (int at = 0; at < inputs; at++) {
        if (fscanf(request, "%63s", names[at]) != 1) stop("request: no name for input %d", at);
        name_list[at] = names[at];
    }
    int threads = (int)next_number(request, 1, 256, "threads");
    int warmup = (int)next_number(request, 0, 1000000, "warmup");
    int samples = (int)next_number(request, 1, 1000000, "samples");
    int texts = (int)next_number(request, 1, MAX_TEXTS, "texts");

    void *library = dlopen("libonnxruntime.so.1", RTLD_NOW);
    if (!library) stop("%s", dlerror());
    const OrtApiBase *(*get_base)(void) = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
    if (!get_base) stop("libonnxruntime.so.1 has no OrtGetApiBase");
    const OrtApiBase *base = get_base();
    ort = base->GetApi(API_VERSION);
    if (!ort) stop("onnxruntime %s has no API version %d", base->GetVersionString(), API_VERSION);
    OrtEnv *environment;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *place;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "runner", &environment));
    check(ort->DisableTelemetryEvents(environment));
    check(ort->CreateSessionOptions(&options));
    check(ort->SetIntraOpNumThreads(options, threads));
    check(ort->SetInterOpNumThreads(options, 1));
    double began = now_ms();
    check(ort->CreateSession(environment, arguments[1], options, &session));
    double load_ms = now_ms() - began, first_ms = 0;
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &place));

    char *partial = memory(strlen(arguments[3]) + 9);
    sprintf(partial, "%s.partial", arguments[3]);
    FILE *reply = fopen(partial, "w");
    if (!reply) stop("%s: cannot be written", partial);
    fprintf(reply, "{\"texts\": [");
    for (int text = 0; text < texts; text++) {
        int64_t length = next_number(request, 1, MAX_LENGTH, "length"), shape[2] = {1, length};
        int64_t *values[MAX_INPUTS];
        OrtValue *tensors[MAX_INPUTS];
        for (int at = 0; at < inputs; at++) values[at] = memory((size_t)length * sizeof(int64_t));
        for (int pass = 0; pass < 2; pass++) /* ids come first, whatever the order of the inputs */
            for (int at = 0; at < inputs; at++) {
                int ids = !strcmp(names[at], "input_ids"), segments = !strcmp(names[at], "token_type_ids");
                for (int64_t token = 0; token < length; token++) {
                    if (pass == 0 && ids) values[at][token] = next_number(request, 0, 1LL << 40, "id");
                    if (pass == 1 && segments) values[at][token] = next_number(request, 0, 1 << 20, "segment");
                    if (!ids && !segments) values[at][token] = 1;
                }
            }
        for (int at = 0; at < inputs; at++)
            check(ort->CreateTensorWithDataAsOrtValue(place, values[at], (size_t)length * sizeof(int64_t), shape, 2,
                                                      ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &tensors[at]));
        const OrtValue *const *given = (const OrtValue *const *)tensors;
        float *logits = NULL;
        size_t labels = 0;
        if (text == 0) first_ms = run(session, name_list, given, inputs, &logits, &labels);
        for (int call = 0; call < warmup; call++) run(session, name_list, given, inputs, &logits, &labels);
        fprintf(reply, "%s\n{\"samples_ms\": [", text ? "," : "");
        for (int call = 0; call < samples; call++) {
            double took = run(session, name_list, given, inputs, &logits, &labels);
            fprintf(reply, "%s%.6f", call ? ", " : "", took);
        }
        fprintf(reply, "], \"logits\": [");
        for (size_t label = 0; label < labels; label++)
            fprintf(reply, "%s%.9g", label ? ", " : "", logits[label]);
        fprintf(reply, "]}");
        free(logits);
        for (int at = 0; at < inputs; at++) {
            ort->ReleaseValue(tensors[at]);
            free(values[at]);
        }
    }
    fprintf(reply, "],\n\"runtime_version\": \"%s\", \"load_ms\": %.6f, \"first_ms\": %.6f, ",
            base->GetVersionString(), load_ms, first_ms);
    fprintf(reply, "\"peak_rss_bytes\": %lld}\n", peak_rss_bytes());
    if (fclose(reply) || rename(partial, arguments[3])) stop("%s: could not be written", arguments[3]);
    return 0;
}
