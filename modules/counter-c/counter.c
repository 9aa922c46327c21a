/* The counter module in C: what modules/counter is in Rust, with the same commands, answers and stored bytes.
 *
 * It needs no library, not even C's: everything is in docs/module-abi.md. Built by `cargo xtask module-c`, which says
 * how. Its memory is scratch: a fresh instance serves each entry of the log, so nothing may be remembered in it.
 */

typedef unsigned char byte;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

/* What the host offers; a module imports only what it uses. */
#define IMPORT(name) __attribute__((import_module("quorate"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

IMPORT(store_get) i64 store_get(const void *key, u32 key_len, void *out, u32 out_cap);
IMPORT(store_put) void store_put(const void *key, u32 key_len, const void *value, u32 value_len);

/* The manifest: a custom section with JSON. */
__asm__(".section .custom_section.quorate_manifest,\"\",@\n"
        ".ascii \"{\\\"name\\\":\\\"counter\\\",\\\"version\\\":\\\"0.1.0\\\",\\\"abi\\\":1,"
        "\\\"state-version\\\":1,\\\"codec\\\":\\\"json\\\"}\"\n"
        ".section .text,\"\",@\n");

/* The name states the version of the ABI; it is never called. */
EXPORT(quorate_abi_v1) void quorate_abi_v1(void) {}

/* ---- Memory: the input, and behind it room for the outcome. ---- */

extern byte __heap_base;

#define PAGE_BYTES 65536u

/* Whether memory reaches up to `end`, grown if need be. */
static int reaches(u32 end) {
    u32 have = __builtin_wasm_memory_size(0) * PAGE_BYTES;
    if (end <= have) return 1;
    return __builtin_wasm_memory_grow(0, (end - have + PAGE_BYTES - 1) / PAGE_BYTES) != (u32)-1;
}

/* Called once before each call, for its input. The last call's is not needed any more. */
EXPORT(quorate_alloc) void *quorate_alloc(u32 length) {
    /* Every byte of an error's text may become six in JSON. */
    u64 end = (u64)(u32)&__heap_base + 7ull * length + 64;
    if (end >= 1ull << 31 || !reaches((u32)end)) return 0;
    return &__heap_base;
}

/* ---- Outcomes: a byte that says how it ended, then the payload. ---- */

typedef struct {
    byte *begin;
    u32 length;
} text;

/* Begins an outcome behind an input of `length` bytes. */
static text outcome(u32 length, byte how) {
    text out = {&__heap_base + length, 1};
    out.begin[0] = how;
    return out;
}

static void put(text *out, byte c) { out->begin[out->length++] = c; }

static void put_text(text *out, const char *c) {
    while (*c) put(out, (byte)*c++);
}

static void put_number(text *out, u64 n) {
    byte digits[20];
    u32 count = 0;
    do digits[count++] = (byte)('0' + n % 10);
    while (n /= 10);
    while (count) put(out, digits[--count]);
}

/* Pointer and length in one number. */
static u64 pair(text out) { return (u64)(u32)out.begin << 32 | out.length; }

/* An error of the module's own: everything that the operation wrote is dropped. */
#define MALFORMED 1u

static u64 malformed(u32 length, const char *what) {
    text out = outcome(length, 1);
    for (u32 shift = 0; shift < 32; shift += 8) put(&out, (byte)(MALFORMED >> shift));
    put_text(&out, "malformed ");
    put_text(&out, what);
    return pair(out);
}

/* ---- JSON: as much of it as the payloads need. ---- */

typedef struct {
    const byte *at, *end;
} reader;

static void skip_space(reader *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\r' || *in->at == '\t')) in->at++;
}

/* Takes `word`, after any space. */
static int take(reader *in, const char *word) {
    skip_space(in);
    const byte *at = in->at;
    for (; *word; word++, at++)
        if (at == in->end || *at != (byte)*word) return 0;
    in->at = at;
    return 1;
}

static int is_at_end(reader *in) {
    skip_space(in);
    return in->at == in->end;
}

/* Takes a number without sign, leading zeros or fraction, if it is below 2^64. */
static int take_number(reader *in, u64 *number) {
    skip_space(in);
    const byte *begin = in->at;
    u64 n = 0;
    for (; in->at < in->end && *in->at >= '0' && *in->at <= '9'; in->at++) {
        u32 digit = *in->at - '0';
        if (n > (~0ull - digit) / 10) return 0;
        n = n * 10 + digit;
    }
    u32 digits = (u32)(in->at - begin);
    *number = n;
    return digits == 1 || (digits > 1 && *begin != '0');
}

/* ---- The counter. ---- */

typedef struct {
    int resets;
    u64 add;
} command;

/* {"add":5} or "reset". */
static int decode_command(reader in, command *c) {
    c->resets = take(&in, "\"reset\"");
    if (!c->resets) {
        if (!(take(&in, "{") && take(&in, "\"add\"") && take(&in, ":"))) return 0;
        if (!(take_number(&in, &c->add) && take(&in, "}"))) return 0;
    }
    return is_at_end(&in);
}

static int decode_null(reader in) { return take(&in, "null") && is_at_end(&in); }

static int decode_number(reader in, u64 *n) { return take_number(&in, n) && is_at_end(&in); }

/* Where the SDK's Item of this name is, and how it is stored: decimal digits. */
static const char KEY[] = {'v', 'a', 'l', 'u', 'e', 0};

static u64 load(void) {
    byte stored[20];
    u64 value = 0;
    i64 length = store_get(KEY, sizeof KEY, stored, sizeof stored);
    for (i64 i = 0; i < length; i++) value = value * 10 + (stored[i] - '0');
    return value;
}

static u64 respond(u32 length, u64 value) {
    text out = outcome(length, 0);
    put_number(&out, value);
    return pair(out);
}

/* ---- Calls. An input begins with a header of 62 bytes. ---- */

#define HEADER_BYTES 62u
#define TAG_AT 53u
#define TAG_COMMAND 1

EXPORT(quorate_apply) u64 quorate_apply(const byte *input, u32 length) {
    if (input[TAG_AT] != TAG_COMMAND) return pair(outcome(length, 0));
    reader in = {input + HEADER_BYTES, input + length};
    command c;
    if (!decode_command(in, &c)) return malformed(length, "command");
    u64 value = 0;
    if (!c.resets) {
        u64 before = load();
        value = before + c.add;
        /* It stays at its largest value. */
        if (value < before) value = ~0ull;
    }
    /* The response's payload is what is stored too. */
    text out = outcome(length, 0);
    put_number(&out, value);
    store_put(KEY, sizeof KEY, out.begin + 1, out.length - 1);
    return pair(out);
}

EXPORT(quorate_query) u64 quorate_query(const byte *input, u32 length) {
    reader in = {input + HEADER_BYTES, input + length};
    if (!decode_null(in)) return malformed(length, "query");
    return respond(length, load());
}

/* ---- Payloads as JSON, for tools. These are JSON already, so both ways check and normalise. ---- */

enum { COMMAND = 1, RESPONSE, QUERY, ANSWER, REQUEST, ERROR };

static u64 normalised(byte kind, reader in, u32 length) {
    command c;
    u64 n;
    text out = outcome(length, 0);
    switch (kind) {
    case COMMAND:
        if (!decode_command(in, &c)) return malformed(length, "command");
        put_text(&out, c.resets ? "\"reset\"" : "{\"add\":");
        if (!c.resets) {
            put_number(&out, c.add);
            put(&out, '}');
        }
        return pair(out);
    case RESPONSE:
    case ANSWER:
        return decode_number(in, &n) ? respond(length, n) : malformed(length, "number");
    case QUERY:
    case REQUEST:
        if (!decode_null(in)) return malformed(length, "null");
        put_text(&out, "null");
        return pair(out);
    default:
        return malformed(length, "kind of payload");
    }
}

static byte hex_digit(u32 n) { return (byte)(n < 10 ? '0' + n : 'a' + n - 10); }

/* An error's payload is its text; in JSON a string. */
static u64 error_to_json(reader in, u32 length) {
    text out = outcome(length, 0);
    put(&out, '"');
    for (; in.at < in.end; in.at++) {
        byte c = *in.at;
        if (c < 0x20) {
            put_text(&out, "\\u00");
            put(&out, hex_digit(c >> 4));
            put(&out, hex_digit(c & 15));
            continue;
        }
        if (c == '"' || c == '\\') put(&out, '\\');
        put(&out, c);
    }
    put(&out, '"');
    return pair(out);
}

EXPORT(quorate_payload_to_json) u64 quorate_payload_to_json(const byte *input, u32 length) {
    reader in = {input + 1, input + length};
    return input[0] == ERROR ? error_to_json(in, length) : normalised(input[0], in, length);
}

/* Nobody sends an error to a module, so its way back is left out. */
EXPORT(quorate_payload_from_json) u64 quorate_payload_from_json(const byte *input, u32 length) {
    reader in = {input + 1, input + length};
    return normalised(input[0], in, length);
}
