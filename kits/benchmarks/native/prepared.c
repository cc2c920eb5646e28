#include "prepared.h"

#include <stdarg.h>

const char stream_head[] =
    "HTTP/1.1 200 OK\r\n"
    "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    "Content-Type: text/event-stream; charset=utf-8\r\n"
    "Transfer-Encoding: chunked\r\n"
    "Cache-Control: no-cache\r\n"
    "Server: upstream\r\n"
    "openai-processing-ms: 12\r\n"
    "openai-version: 2020-10-01\r\n"
    "x-ratelimit-limit-requests: 10000\r\n"
    "x-ratelimit-remaining-requests: 9999\r\n"
    "x-request-id: req_0123456789abcdef0123456789abcdef\r\n"
    "\r\n";

/* Texts as models write them: words of several lengths, some of which JSON escapes. */
static const char *const words[] = {
    " the", " streaming", " of", " proxy", ",", " connection", " a", " r\xc3\xa9sum\xc3\xa9", " answer", ".",
    "\\n\\n", " \\\"quoted", "\\\"", " and", " measurements", " 42", " \xe2\x80\x94", " token", " per", " request",
};
#define WORDS (sizeof words / sizeof *words)

#define CHAT_START                                                                                       \
    "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\","     \
    "\"created\":1750000000,\"model\":\"gpt-4o-mini\","                                                   \
    "\"system_fingerprint\":\"fp_44709d6fcb\","
#define CHAT_DELTA CHAT_START "\"choices\":[{\"index\":0,\"delta\":{"
#define CHAT_DELTA_END "},\"finish_reason\":null}],\"usage\":null}\n\n"

/* Add one event, in an HTTP chunk of its own. */
static void add_chunk(struct bytes *out, const char *format, ...) {
    va_list args;
    char prefix[16];
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bytes_add(out, prefix, (size_t)snprintf(prefix, sizeof prefix, "%x\r\n", (unsigned)n));
    va_start(args, format);
    vsnprintf(bytes_room(out, (size_t)n + 1), (size_t)n + 1, format, args);
    va_end(args);
    out->len += (size_t)n;
    bytes_add(out, "\r\n", 2);
}

void add_stamped_event(struct bytes *out, uint64_t now) {
    add_chunk(out, CHAT_DELTA "\"content\":\" " STAMP_MARK "%0*llu\"" CHAT_DELTA_END, STAMP_DIGITS,
              (unsigned long long)now);
}

void add_chat_end(struct bytes *out) {
    add_chunk(out, CHAT_START "\"choices\":[{\"index\":0,\"delta\":{},"
                              "\"finish_reason\":\"stop\"}],\"usage\":null}\n\n");
    add_chunk(out, CHAT_START "\"choices\":[],\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":200,"
                              "\"total_tokens\":225,\"prompt_tokens_details\":{\"cached_tokens\":0,"
                              "\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,"
                              "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,"
                              "\"rejected_prediction_tokens\":0}}}\n\n");
    add_chunk(out, "data: [DONE]\n\n");
    bytes_add(out, "0\r\n\r\n", 5);
}

static void make_chat(struct bytes *out, unsigned n) {
    add_chunk(out, CHAT_DELTA "\"role\":\"assistant\",\"content\":\"\",\"refusal\":null" CHAT_DELTA_END);
    for (unsigned i = 1; i + 1 < n; i++)
        add_chunk(out, CHAT_DELTA "\"content\":\"%s\"" CHAT_DELTA_END, words[i * 7 % WORDS]);
    add_chat_end(out);
}

#define RESPONSE                                                                                         \
    "{\"id\":\"resp_67ccd2bed1ec8190b14f964abc054267\",\"object\":\"response\",\"created_at\":1750000000," \
    "\"status\":\"%s\",\"error\":null,\"incomplete_details\":null,\"instructions\":null,"                \
    "\"max_output_tokens\":null,\"model\":\"gpt-4o-mini-2024-07-18\",\"output\":[%s],"                   \
    "\"parallel_tool_calls\":true,\"previous_response_id\":null,\"reasoning\":{\"effort\":null,"         \
    "\"summary\":null},\"store\":true,\"temperature\":1.0,\"text\":{\"format\":{\"type\":\"text\"}},"    \
    "\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":1.0,\"truncation\":\"disabled\",\"usage\":%s,"      \
    "\"user\":null,\"metadata\":{}}"
#define ITEM_ID "msg_67ccd2bf17f0819081ff3bb2cf6508e6"
#define PART "{\"type\":\"output_text\",\"text\":\"%s\",\"annotations\":[]}"
#define ITEM                                                                                     \
    "{\"id\":\"" ITEM_ID "\",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\"," \
    "\"content\":[%s]}"
#define AT "\"item_id\":\"" ITEM_ID "\",\"output_index\":0,\"content_index\":0"
#define EVENT(type) "event: " type "\ndata: {\"type\":\"" type "\",\"sequence_number\":%u,"

static void make_responses(struct bytes *out, unsigned n) {
    struct bytes text = {0};
    unsigned number = 0;
    for (unsigned i = 0; i < n; i++) bytes_add(&text, words[i * 7 % WORDS], strlen(words[i * 7 % WORDS]));
    bytes_add(&text, "", 1);
    size_t room = text.len + 512;
    char *part = malloc(room), *item = malloc(room);
    if (!part || !item) die("malloc");
    snprintf(part, room, PART, text.data);
    snprintf(item, room, ITEM, "completed", part);

    add_chunk(out, EVENT("response.created") "\"response\":" RESPONSE "}\n\n", number++, "in_progress", "", "null");
    add_chunk(out, EVENT("response.in_progress") "\"response\":" RESPONSE "}\n\n", number++, "in_progress", "",
              "null");
    add_chunk(out, EVENT("response.output_item.added") "\"output_index\":0,\"item\":" ITEM "}\n\n", number++,
              "in_progress", "");
    add_chunk(out, EVENT("response.content_part.added") AT ",\"part\":" PART "}\n\n", number++, "");
    for (unsigned i = 0; i < n; i++)
        add_chunk(out, EVENT("response.output_text.delta") AT ",\"delta\":\"%s\",\"logprobs\":[]}\n\n", number++,
                  words[i * 7 % WORDS]);
    add_chunk(out, EVENT("response.output_text.done") AT ",\"text\":\"%s\",\"logprobs\":[]}\n\n", number++, text.data);
    add_chunk(out, EVENT("response.content_part.done") AT ",\"part\":%s}\n\n", number++, part);
    add_chunk(out, EVENT("response.output_item.done") "\"output_index\":0,\"item\":%s}\n\n", number++, item);
    add_chunk(out, EVENT("response.completed") "\"response\":" RESPONSE "}\n\n", number++, "completed", item,
              "{\"input_tokens\":36,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":200,"
              "\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":236}");
    bytes_add(out, "0\r\n\r\n", 5);
    free(part);
    free(item);
    bytes_free(&text);
}

typedef void maker(struct bytes *, unsigned);

static const struct bytes *made(maker *make, unsigned n) {
    static struct {
        maker *make;
        unsigned n;
        struct bytes answer;
    } cache[64];
    for (size_t i = 0; i < sizeof cache / sizeof *cache; i++) {
        if (!cache[i].make) {
            cache[i].make = make;
            cache[i].n = n;
            bytes_add(&cache[i].answer, stream_head, strlen(stream_head));
            make(&cache[i].answer, n);
        }
        if (cache[i].make == make && cache[i].n == n) return &cache[i].answer;
    }
    fputs("too many different answers\n", stderr);
    exit(1);
}

const struct bytes *chat_stream(unsigned n) { return made(make_chat, n); }
const struct bytes *responses_stream(unsigned n) { return made(make_responses, n); }
