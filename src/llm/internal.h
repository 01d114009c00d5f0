/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of this room: all but llm.c and llama*.c are without I/O. */
#ifndef CM_LLM_INTERNAL_H
#define CM_LLM_INTERNAL_H

#include "base/buf.h"
#include "egress/egress.h"
#include "llm/llm.h"
#include "wire/json.h"
#include "wire/sse.h"

/* ---- json.c: reading what others have written */

/* A member of a checked object; CM_JSON_ABSENT where there is none, or no object. The first of its name counts. */
struct cm_json_value cm_llm_field(const struct cm_json_value *object, const char *name);
/* The same with a path: "prompt_tokens_details.cached_tokens". */
struct cm_json_value cm_llm_path(const struct cm_json_value *object, const char *path);
/* A count that somebody else names: 0 for what is none, at most 2^50. */
uint64_t cm_llm_count(const struct cm_json_value *number);
/* Decodes a string in place, half surrogate pairs as U+FFFD. NULL for what is no string. */
const char *cm_llm_text(struct cm_json_value *string, size_t *ret_len);
/* Copies a string, cut at a whole character. What is none leaves `to` alone. */
void cm_llm_copy(struct cm_json_value *string, char *to, size_t size);
/* Bytes of the text, at most `max`, that end with a whole character. */
size_t cm_llm_whole(const char *text, size_t len, size_t max);

/* ---- prices.c */

struct cm_llm_row {
    char *name;
    unsigned window; /* 0: not said */
    double input, cached, output; /* USD per million tokens; negative: not said */
};

struct cm_llm_table {
    struct cm_llm_row *rows;
    size_t count;
};

/* Adds rows to the table, or changes those that it has: {"models": {NAME: {"window", "input", "cached_input", "output"}}}, or
 * the inner object alone. CM_ERR_BAD_JSON, CM_ERR_BAD_FIELD; the table may have some of them then. */
int cm_llm_table_add(struct cm_llm_table *t, const char *json, size_t len, struct cm_err *err);
void cm_llm_table_done(struct cm_llm_table *t);
const struct cm_llm_row *cm_llm_table_find(const struct cm_llm_table *t, const char *model);
/* Sets cost and priced of a usage that has no cost of the service's own. */
void cm_llm_table_price(const struct cm_llm_table *t, const char *model, struct cm_llm_usage *usage);

/* ---- request.c */

/* What a service does not understand: found out by its refusal. */
enum {
    CM_LLM_NO_STREAM_OPTIONS = 1,
    CM_LLM_NO_STREAM = 2,
    CM_LLM_COMPLETION_TOKENS = 4, /* it wants max_completion_tokens in place of max_tokens */
};

/* CM_ERR_BAD_FIELD for a model that cannot be asked. */
int cm_llm_request_check(const struct cm_llm_model *model, struct cm_err *err);
/* The body's beginning, which all attempts share. */
int cm_llm_request_begin(struct cm_buf *to, const struct cm_llm_model *model, const struct cm_llm_message *messages,
                         size_t count, struct cm_err *err);
/* Its end. */
int cm_llm_request_end(struct cm_buf *to, const struct cm_llm_model *model, unsigned quirks);
int cm_llm_request_url(struct cm_buf *to, const struct cm_llm_model *model);

/* ---- read.c, openai.c, anthropic.c: what a service answers */

enum cm_llm_shape { CM_LLM_SHAPE_UNKNOWN, CM_LLM_SHAPE_STREAM, CM_LLM_SHAPE_WHOLE };

struct cm_llm_reader {
    enum cm_llm_api api;
    enum cm_llm_shape shape;
    struct cm_sse sse;
    struct cm_buf whole; /* an answer that is no stream */
    struct cm_buf mended; /* an event whose bytes are not UTF-8, mended */
    struct cm_buf text;
    uint64_t reply_max, events;
    void (*words)(void *arg, const char *text, size_t len); /* or NULL */
    void *arg;
    bool answer; /* something was there that only an answer has */
    bool finished; /* it says that it has ended */
    bool refused; /* the model or a filter has declined */
    bool broken; /* something was no JSON, or no answer */
    bool too_large, no_memory;
    bool failed; /* an error came in place of an answer, or in its middle: */
    int error_status; /* as a status of HTTP; 0: it does not say */
    unsigned quirk; /* what it does not take */
    bool too_long; /* it says that the prompt is */
    char error[400], error_code[64];
    char finish[24], model[128];
    bool has_usage, has_cost;
    struct cm_llm_usage usage;
};

void cm_llm_reader_init(struct cm_llm_reader *r, enum cm_llm_api api, uint64_t reply_max);
void cm_llm_reader_done(struct cm_llm_reader *r);
/* A piece of the body. False when there is nothing more to be read for: broken, too large, no memory, failed. `ok`: the
 * status is 2xx; else it is the body of an error, of which the beginning is kept. */
bool cm_llm_reader_feed(struct cm_llm_reader *r, bool ok, const char *data, size_t len);
/* The body is over. */
void cm_llm_reader_end(struct cm_llm_reader *r, bool ok);

/* For the two APIs: one JSON object of a stream, or the whole answer. */
void cm_llm_openai_read(struct cm_llm_reader *r, const struct cm_json_value *object);
void cm_llm_anthropic_read(struct cm_llm_reader *r, const struct cm_json_value *object);
void cm_llm_reader_words(struct cm_llm_reader *r, struct cm_json_value *string);
/* The text of a list of parts, of those with type "text". */
void cm_llm_reader_parts(struct cm_llm_reader *r, const struct cm_json_value *array);

/* ---- error.c */

/* Takes the error that an object holds, if it holds one. */
bool cm_llm_error_read(struct cm_llm_reader *r, const struct cm_json_value *object);
/* The body of an answer with a bad status, whatever it is. */
void cm_llm_error_body(struct cm_llm_reader *r, char *body, size_t len);

/* ---- verdict.c: what an attempt has come to */

struct cm_llm_verdict {
    enum cm_llm_failure failure;
    bool again; /* another attempt may help */
    unsigned quirk; /* it refused something that we can leave out: try again without, at once */
    char reason[640];
};

/* `told`: words of this attempt went to the caller. `host` for the reason. */
void cm_llm_judge(const struct cm_llm_reader *r, const struct cm_fetch_end *end, const char *host, bool told,
                  struct cm_llm_verdict *ret);
/* Seconds to wait before attempt `made` + 1; `random` is 0 to 1. */
double cm_llm_wait(const struct cm_llm_config *config, unsigned made, double retry_after_s, double random);

/* ---- files.c, for llama.c */

/* `path` is a GGUF file, or a folder with some: the first by name. */
int cm_llama_model_file(const char *path, struct cm_buf *ret, struct cm_err *err);
/* Without folder and ".gguf". */
int cm_llama_model_name(const char *file, struct cm_buf *ret);
/* llama-server on the PATH. */
int cm_llama_program(struct cm_buf *ret, struct cm_err *err);

#endif
